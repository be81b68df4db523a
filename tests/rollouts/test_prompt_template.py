"""A prompt template of the user's own writes what a policy reads; its faults are found before anything plays."""

from __future__ import annotations

import pytest

from gentax.core import Step, UsageError
from gentax.rollouts.prompt import RolloutConfig, build_message, with_token_budget

STEPS = [Step(f"obs {n}", "", f"act {n}", 0.0, True) for n in range(3)]
OURS = (
    "{{ rules }}|{{ goal }}|{{ step }}|{% for one in history %}{{ one.observation }}>{{ one.action }};{% endfor %}"
    "{{ observation }}|{{ (admissible or [])|join(',') }}|{{ format }}"
)


def test_it_writes_the_message_that_starts_a_conversation(tmp_path):
    file = tmp_path / "prompt.jinja"
    file.write_text(OURS)
    config = RolloutConfig(context="window(2)", prompt_template=str(file))
    text, continues = build_message(config, "RULES", "GOAL", STEPS, "obs 3", ["up", "down"])
    assert text == "RULES|GOAL|4|obs 1>act 1;obs 2>act 2;obs 3|up,down|Answer <action>your action</action>"
    assert not continues
    full = RolloutConfig(prompt_template=str(file))
    assert build_message(full, "RULES", "GOAL", (), "obs 0", None)[0].startswith("RULES|GOAL|1|obs 0||Answer")
    assert build_message(full, "RULES", "GOAL", STEPS, "obs 3", None) == ("obs 3", True)
    file.write_text("now {{ observation }}")
    assert build_message(full, "", "", (), "obs 0", None)[0] == "now obs 0"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "there is no prompt template"),
        ("{{ goal }}", "does not show the observation"),
        ("{{ observation }} {{ goall }}", "unknown field of the prompt template .* 'goall'; did you mean 'goal'"),
        ("{{ observation", "no template that can be used"),
        ("{{ observation }}{{ rules.x.y }}", "fails: "),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "fails: it takes more than"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_what_is_wrong_with_it_is_said_at_once(tmp_path, source, said):
    file = tmp_path / "prompt.jinja"
    if source is not None:
        file.write_bytes(source if isinstance(source, bytes) else source.encode())
    with pytest.raises(UsageError, match=said) as fault:
        RolloutConfig(prompt_template=str(file))
    assert "\n" not in str(fault.value)


def test_settings_are_checked():
    for bad in ({"top_p": 0.0}, {"top_k": -1}, {"min_p": 1.0}, {"action_format": "xml"}):
        with pytest.raises(UsageError):
            RolloutConfig(**bad)


def test_settings_that_came_later_are_not_hashed_at_their_defaults():
    from gentax.core.settings import plain

    assert set(plain(RolloutConfig())) == {
        "context", "thinking", "admissible", "temperature", "max_new_tokens", "horizon", "reward", "wrap",
    }  # fmt: skip
    assert plain(RolloutConfig(top_p=0.9, action_format="json")) == {
        **plain(RolloutConfig()),
        "top_p": 0.9,
        "action_format": "json",
    }


class Writes:
    def __init__(self, tokens):
        self.default_max_new_tokens = lambda chat: 4 * tokens if chat.thinking else tokens


def test_the_budget_is_that_of_the_model_and_the_larger_of_two():
    assert with_token_budget(RolloutConfig(), Writes(32)).max_new_tokens == 32
    assert with_token_budget(RolloutConfig(), Writes(32), Writes(512)).max_new_tokens == 512
    assert with_token_budget(RolloutConfig(thinking=True), Writes(32), object()).max_new_tokens == 128
    assert with_token_budget(RolloutConfig(max_new_tokens=7), Writes(512)).max_new_tokens == 7
    assert with_token_budget(RolloutConfig(), object()).max_new_tokens == 0
    assert (RolloutConfig().sampling.max_new_tokens, RolloutConfig(thinking=True).sampling.max_new_tokens) == (
        512,
        2048,
    )

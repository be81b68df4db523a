"""What a policy is shown under each context, and through a prompt template of the user's own."""

from __future__ import annotations

from itertools import pairwise

import pytest

from gentax.core import Episode, Outcome, Step, Task, UsageError
from gentax.rollouts.prompt import (
    ADMISSIBLE_SHOWN,
    EvalRolloutConfig,
    RolloutConfig,
    build_message,
    episode_prompts,
    with_token_budget,
)

STEPS = tuple(Step(f"obs {n}", f"<action>act {n}</action>", f"act {n}", 0.0, True) for n in range(4))


def said(config, n, admissible=None):
    return build_message(config, "RULES", "GOAL", STEPS[:n], f"obs {n}", admissible)


def test_full_says_the_rules_once_and_then_only_what_is_new():
    text, continues = said(RolloutConfig(), 0)
    assert not continues
    assert all(part in text for part in ("RULES", "GOAL", "obs 0"))
    assert said(RolloutConfig(), 3) == ("obs 3", True)


def test_window_shows_the_last_k_steps_and_the_rules_every_time():
    text, continues = said(RolloutConfig(context="window(2)"), 3)
    assert not continues
    assert "RULES" in text
    assert "obs 0" not in text
    assert text.endswith("obs 1\n> act 1\nobs 2\n> act 2\nobs 3")


def test_window_of_nothing_is_the_observation_alone():
    assert "> act" not in said(RolloutConfig(context="window(0)"), 3)[0]


def test_the_prompt_asks_for_thoughts_only_when_thinking():
    assert "<think>" in said(RolloutConfig(thinking=True), 0)[0]
    assert "<think>" not in said(RolloutConfig(), 0)[0]


def test_a_long_list_of_actions_is_cut_and_says_so():
    text, _ = said(RolloutConfig(admissible=True), 0, [f"a{n}" for n in range(ADMISSIBLE_SHOWN + 5)])
    assert f"a{ADMISSIBLE_SHOWN - 1}" in text
    assert f"a{ADMISSIBLE_SHOWN} " not in text
    assert text.endswith("and 5 more")


def test_whole_prompts_grow_in_a_full_context_and_not_in_a_window(toy):
    episode = Episode(Task("toy", "three", "test", 0), 0, "GOAL", STEPS, Outcome.FAILURE, rules="RULES")
    full = episode_prompts(RolloutConfig(), episode)
    assert all(b.startswith(a) for a, b in pairwise(full))
    assert "<action>act 2</action>" in full[3]
    window = episode_prompts(RolloutConfig(context="window(1)"), episode)
    assert len({len(p) for p in window[1:]}) == 1


PAST = STEPS[:3]
OURS = (
    "{{ rules }}|{{ goal }}|{{ step }}|{% for one in history %}{{ one.observation }}>{{ one.action }};{% endfor %}"
    "{{ observation }}|{{ (admissible or [])|join(',') }}|{{ format }}"
)


def test_it_writes_the_message_that_starts_a_conversation(tmp_path):
    file = tmp_path / "prompt.jinja"
    file.write_text(OURS)
    config = RolloutConfig(context="window(2)", prompt_template=str(file))
    text, continues = build_message(config, "RULES", "GOAL", PAST, "obs 3", ["up", "down"])
    assert text == "RULES|GOAL|4|obs 1>act 1;obs 2>act 2;obs 3|up,down|Answer <action>your action</action>"
    assert not continues
    full = RolloutConfig(prompt_template=str(file))
    assert build_message(full, "RULES", "GOAL", (), "obs 0", None)[0].startswith("RULES|GOAL|1|obs 0||Answer")
    assert build_message(full, "RULES", "GOAL", PAST, "obs 3", None) == ("obs 3", True)
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
        pytest.param(
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "fails: it takes more than",
            marks=pytest.mark.slow,
        ),
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


def test_settings_that_came_later_are_not_hashed_at_their_defaults():
    from gentax.core.settings import plain

    assert set(plain(RolloutConfig())) == {
        "context", "thinking", "admissible", "temperature", "max_new_tokens", "horizon", "reward", "wrap",
    }  # fmt: skip
    assert plain(EvalRolloutConfig()) == plain(RolloutConfig())
    assert plain(EvalRolloutConfig(top_p=0.9, action_format="json")) == {
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
    assert [RolloutConfig(thinking=on).sampling.max_new_tokens for on in (False, True)] == [512, 2048]

"""What a policy is shown under each context."""

from __future__ import annotations

from itertools import pairwise

from gentax.core import Episode, Outcome, Step, Task
from gentax.rollouts.prompt import ADMISSIBLE_SHOWN, RolloutConfig, build_message, episode_prompts

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

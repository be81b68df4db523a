"""What a step is worth, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gentax.core import Episode, Outcome, Step, Task, Tokens
from gentax.training.config import ExplorationConfig, RewardConfig
from gentax.training.rewards import groups, rewards_of

NOTHING = RewardConfig(invalid_penalty=0.0)


def episode(seen="ab", final="z", rewards=None, task=0, outcome=Outcome.FAILURE, **changes):
    """One that sees the letters of `seen`, then `final`."""
    steps = tuple(
        replace(Step(observation, "t", "a", reward, True), **changes)
        for observation, reward in zip(seen, rewards or [0.0] * len(seen), strict=True)
    )
    return Episode(Task("toy", "three", "train", task), 0, "g", steps, outcome, final)


def expert(step):
    """The same step, as an expert plays it in a head start."""
    nothing = np.zeros(0, np.int32)
    return replace(step, tokens=Tokens(False, np.array([1], np.int32), nothing, np.zeros(0, np.float32)))


def test_the_environment_pays_by_step():
    (found,) = rewards_of([episode("abc", rewards=[0.0, 0.25, 1.0])], NOTHING, ExplorationConfig())
    assert found.dtype == np.float64
    assert found.tolist() == [0.0, 0.25, 1.0]


def test_each_invalid_action_costs():
    one = episode("abc", rewards=[0.0, 0.0, 1.0])
    one = replace(one, steps=(one.steps[0], replace(one.steps[1], valid=False), one.steps[2]))
    (found,) = rewards_of([one], RewardConfig(invalid_penalty=0.1), ExplorationConfig())
    assert found == pytest.approx([0.0, -0.1, 1.0])


def test_thoughts_are_paid_by_the_word():
    one = episode("ab", thought="five words are thought here")
    assert rewards_of([one], RewardConfig(think_length=2.0), ExplorationConfig())[0] == pytest.approx([0.1, 0.1])
    assert rewards_of([one], RewardConfig(think_length=-2.0), ExplorationConfig())[0] == pytest.approx([-0.1, -0.1])


def test_a_new_state_pays_less_the_more_the_group_met_it():
    # Visits of the group: a 3, b 2, c 1, z 2. The second episode comes back to where it began, and to b.
    group = [episode("ab", "c"), episode("abab"[:3], "z"), episode("z", "z", task=1)]
    first, second, alone = rewards_of(group, NOTHING, ExplorationConfig(count_bonus=0.5))
    assert first == pytest.approx([0.5 / math.sqrt(2), 0.5])
    assert second == pytest.approx([0.5 / math.sqrt(2), 0.0, 0.5])
    assert alone == pytest.approx([0.0])  # it stays where it began


def test_the_order_of_a_group_pays_nobody_more():
    group = [episode("ab", "c"), episode("ab", "c")]
    first, second = rewards_of(group, NOTHING, ExplorationConfig(count_bonus=1.0))
    assert first == pytest.approx([1 / math.sqrt(2)] * 2)
    assert (first == second).all()


def test_a_judge_pays_at_the_end():
    episodes = [episode("ab", rewards=[0.0, 1.0]), episode("abc")]
    first, second = rewards_of(episodes, NOTHING, ExplorationConfig(), [1.0, 0.5])
    assert first.tolist() == [0.0, 2.0]
    assert second.tolist() == [0.0, 0.0, 0.5]


def test_an_error_is_worth_nothing_and_in_no_group():
    broken = episode("ab", rewards=[0.0, 1.0], outcome=Outcome.ERROR, valid=False)
    whole = episode("ab", "c")
    found = rewards_of([broken, whole], RewardConfig(), ExplorationConfig(count_bonus=1.0), [1.0, 0.0])
    assert found[0].tolist() == [0.0, 0.0]
    assert found[1].tolist() == [1.0, 1.0]  # b and c were met once
    assert groups([broken, whole]) == [[1]]


def test_what_an_expert_played_has_the_environments_reward_alone():
    one = episode("ab", "c", rewards=[0.5, 0.5], thought="a thought", valid=False)
    one = replace(one, steps=(expert(one.steps[0]), one.steps[1]))
    (found,) = rewards_of(
        [one], RewardConfig(invalid_penalty=0.1, think_length=1.0), ExplorationConfig(count_bonus=1.0)
    )
    assert found == pytest.approx([0.5, 0.5 - 0.1 + 0.02 + 1.0])


def test_nothing_is_changed_in_what_it_was_given():
    one = episode("ab", rewards=[1.0, 1.0])
    rewards_of([one], NOTHING, ExplorationConfig(count_bonus=1.0), [1.0])
    assert [step.reward for step in one.steps] == [1.0, 1.0]

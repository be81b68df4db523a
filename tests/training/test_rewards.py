"""What a step is worth, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gentax.core import Episode, Outcome, Step, Task
from gentax.training.config import RewardConfig
from gentax.training.rewards import groups, rewards_of

NOTHING = RewardConfig(invalid_penalty=0.0)


def episode(seen="ab", final="z", rewards=None, task=0, outcome=Outcome.FAILURE, **changes):
    """One that sees the letters of `seen`, then `final`."""
    steps = tuple(
        replace(Step(observation, "t", "a", reward, True), **changes)
        for observation, reward in zip(seen, rewards or [0.0] * len(seen), strict=True)
    )
    return Episode(Task("toy", "three", "train", task), 0, "g", steps, outcome, final)


def test_the_environment_pays_by_step():
    (found,) = rewards_of([episode("abc", rewards=[0.0, 0.25, 1.0])], NOTHING)
    assert found.dtype == np.float64
    assert found.tolist() == [0.0, 0.25, 1.0]


def test_each_invalid_action_costs():
    one = episode("abc", rewards=[0.0, 0.0, 1.0])
    one = replace(one, steps=(one.steps[0], replace(one.steps[1], valid=False), one.steps[2]))
    (found,) = rewards_of([one], RewardConfig(invalid_penalty=0.1))
    assert found == pytest.approx([0.0, -0.1, 1.0])


def test_a_judge_pays_at_the_end():
    episodes = [episode("ab", rewards=[0.0, 1.0]), episode("abc")]
    first, second = rewards_of(episodes, NOTHING, [1.0, 0.5])
    assert first.tolist() == [0.0, 2.0]
    assert second.tolist() == [0.0, 0.0, 0.5]


def test_an_error_is_worth_nothing_and_in_no_group():
    broken = episode("ab", rewards=[0.0, 1.0], outcome=Outcome.ERROR, valid=False)
    whole = episode("ab", rewards=[0.0, 1.0])
    assert [r.tolist() for r in rewards_of([broken, whole], RewardConfig(), [1.0, 0.0])] == [[0.0, 0.0], [0.0, 1.0]]
    assert groups([broken, whole]) == [[1]]

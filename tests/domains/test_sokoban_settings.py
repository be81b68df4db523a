"""Sokoban: rewards, levels, bad settings, and Gymnasium's conventions."""

from __future__ import annotations

import random

import pytest

from gentax.core import UsageError
from gentax.domains.sokoban import DOMAIN, LEVELS
from gentax.domains.sokoban.board import PLAYER_BITS
from gentax.domains.sokoban.env import Sokoban


def test_dense_reward_sums_to_one_on_success_and_never_more():
    env, rng, partial = Sokoban("7x7-2", reward="dense", horizon=60), random.Random(1), 0
    for index in range(40):
        env.reset(options={"index": index})
        total, over = 0.0, False
        while not over:
            chosen = env.expert() if index % 2 else None
            _, reward, terminated, truncated, _ = env.step(chosen.action if chosen else rng.choice(env.admissible()))
            assert reward >= 0
            total, over = total + reward, terminated or truncated
        assert total == pytest.approx(1) if terminated else total < 1
        partial += 0 < total < 1
    assert partial


def test_a_level_given_by_its_numbers():
    env = Sokoban("6x8-2-5-9")
    assert env.horizon == 14
    for index in range(20):
        _, info = env.reset(options={"index": index})
        assert info["goal"].endswith("this 6 by 8 room.")
        assert 5 <= env.distance() <= 9
        assert "You " in env.observation
        assert (env.state >> PLAYER_BITS).bit_count() == 2


def test_named_levels_have_their_own_horizon():
    assert DOMAIN.levels["6x6"].horizon == 15
    assert DOMAIN.levels[DOMAIN.default_level].horizon == 20
    assert {level: Sokoban(level).horizon for level in LEVELS} == {level: LEVELS[level].horizon for level in LEVELS}


@pytest.mark.parametrize(
    ("level", "says"),
    [
        ("6x6x", "did you mean '6x6'"),
        ("easy", "ROWSxCOLUMNS-BOXES-MIN-MAX"),
        ("6x6-1-3", "did you mean"),
        ("4x6-1-3-5", "rows must be 5 to 16"),
        ("6x99-1-3-5", "columns must be 5 to 16"),
        ("6x6-9-3-5", "boxes must be 1 to 4"),
        ("6x6-1-9-5", "longest plan must be 9 to"),
        ("6x6-1-0-5", "did you mean"),
        ("", "6x6"),
        ("xsb", "xsb=FILE"),
    ],
)
def test_bad_levels_are_refused_with_a_suggestion(level, says):
    with pytest.raises(UsageError, match=says.replace("(", r"\(")):
        Sokoban(level)


def test_an_impossible_level_is_refused_in_time():
    with pytest.raises(UsageError, match="shorter plans or a larger room"):
        Sokoban("5x5-1-90-99").reset(options={"index": 0})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rendering": "grd"}, "did you mean 'grid'"),
        ({"reward": "dens"}, "did you mean 'dense'"),
    ],
)
def test_bad_settings_are_refused_with_a_suggestion(settings, says):
    with pytest.raises(UsageError, match=says):
        Sokoban(**settings)

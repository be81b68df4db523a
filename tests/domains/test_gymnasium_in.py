"""Environments of numbers as domains: registered ones by name, and those with a `describe` function of their own."""

from __future__ import annotations

import sys

import pytest

import gentax
from gentax.core import UsageError
from gentax.domains.check import QUICK

OWN = """
import gymnasium


def lake():
    env = gymnasium.make("FrozenLake-v1", is_slippery=False)
    env.describe = lambda cell: f"You are in row {cell // 4}, column {cell % 4}."
    env.actions = ["left", "down", "right", "up"]
    return env


class Corridor(gymnasium.Env):
    'A door at the end of a corridor.'

    observation_space, action_space = gymnasium.spaces.Dict({"image": gymnasium.spaces.Discrete(4)}), None
    max_steps = 9

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 2
        return self.seen(), {}

    def step(self, action):
        self.left -= ["go back", "go on"].index(action)
        return self.seen(), float(self.left == 0), self.left == 0, False, {}

    def seen(self):
        return {"image": self.left, "mission": "reach the door", "far": f"The door is {self.left} steps away."}


class Worded(gymnasium.Wrapper):
    language_action_space = ["go back", "go on"]

    def reset(self, **settings):
        seen, info = self.env.reset(**settings)
        return self.worded(seen), info

    def step(self, action):
        seen, *rest = self.env.step(action)
        return self.worded(seen), *rest

    def worded(self, seen):
        text = {"long_term_context": seen["far"], "short_term_context": "You hear nothing."}
        return {"text": text, "image": None, "mission": seen["mission"]}


class Late(Corridor):
    max_steps = 0

    def reset(self, **settings):
        self.max_steps = 9
        return super().reset(**settings)


def worded():
    return Worded(Corridor())


def mute():
    env = Worded(Corridor())
    env.worded = lambda seen: {"image": 3}
    return env


def pendulum():
    env = gymnasium.make("Pendulum-v1")
    env.describe = str
    return env
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_lake.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_lake", None)


def test_a_describe_function_and_action_names_make_an_environment_textual(own):
    env = gentax.make("own_lake:lake")
    shown, info = env.reset(options={"index": 0, "split": "test"})
    assert shown == "You are in row 0, column 0."
    assert (
        info["goal"] == "Frozen lake involves crossing a frozen lake from start to goal without falling into any holes"
    )
    assert (env.admissible(), env.horizon) == (["left", "down", "right", "up"], 100)
    refused = env.step("fly")
    assert (refused[0], refused[4]) == (shown, {"valid": False, "success": False})
    *walk, last = ["Down", "down ", "right", "down", "right", "right"]
    for action in walk:
        assert env.step(action)[2] is False
    shown, reward, terminated, _, info = env.step(last)
    assert (shown, reward, terminated, info["success"]) == ("You are in row 3, column 3.", 1.0, True, True)


def test_a_registered_environment_with_text_rendering_works_unchanged():
    env = gentax.make("gymnasium:CliffWalking-v1")
    assert env.admissible() is None
    shown, _ = env.reset(options={"index": 0})
    assert "x  C  C" in shown
    assert env.admissible() == ["Move up", "Move right", "Move down", "Move left"]
    assert "avoiding falling off a cliff" in env.domain.rules
    lake = gentax.make("gymnasium:FrozenLake-v1")
    shown, _ = lake.reset(options={"index": 0})
    assert shown.strip().startswith("[red S]FFF")  # where the player is, which a terminal shows in colour
    assert lake.admissible()[0] == "Move left"
    assert gentax.evaluate("random", ["gymnasium:FrozenLake-v1"], tasks=4).success()


def test_the_check_reports_what_had_to_be_assumed():
    (result,) = gentax.check("gymnasium:CliffWalking-v1", effort=QUICK, only=["claims"]).results
    assert "it states no horizon: episodes are cut after 50 steps" in result.message
    (result,) = gentax.check("gymnasium:FrozenLake-v1", effort=QUICK, only=["claims"]).results
    assert result.message == "it states no success: an episode that ended by itself with a reward above 0 counts as one"
    (result,) = gentax.check("sokoban", effort=QUICK, only=["claims"]).results
    assert result.verdict == "passed"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gymnasium:FrozenLak-v1", "did you mean 'FrozenLake-v1'"),
        ("gymnasium:CartPole-v1", r"give it a `describe\(observation\)`"),
        ("own_lake:pendulum", "takes actions of Box, which have no names"),
    ],
)
def test_environments_without_text_are_refused_in_one_line(own, name, message):
    with pytest.raises(UsageError, match=message) as error:
        gentax.make(name)
    assert "\n" not in str(error.value)


def test_a_dict_observation_of_texts_is_joined_in_order(own):
    env = gentax.make("own_lake:worded")
    shown, info = env.reset(options={"index": 0})
    assert (shown, info["goal"]) == ("The door is 2 steps away.\nYou hear nothing.", "reach the door")
    assert (env.admissible(), env.horizon) == (["go back", "go on"], 9)
    assert env.step("fly")[4] == {"valid": False, "success": False}
    assert env.step("Go on ")[2] is False
    shown, reward, terminated, _, info = env.step("go on")
    assert shown.startswith("The door is 0 steps away.")
    assert (reward, terminated, info["success"]) == (1.0, True, True)
    plain = gentax.make("own_lake:Corridor")
    assert plain.reset(options={"index": 0})[0] == "The door is 2 steps away."
    assert not any("horizon" in caveat for caveat in plain.caveats())
    late = gentax.make("own_lake:Late")
    late.reset(options={"index": 0})
    assert (late.horizon, late.caveats()[0]) == (50, "it states no horizon: episodes are cut after 50 steps")
    with pytest.raises(UsageError, match="an observation has no text, but image"):
        gentax.make("own_lake:mute").reset(options={"index": 0})

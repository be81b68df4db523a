"""The wrappers on the other domains: the expert still wins, the same way, and no distractor is of any use."""

from __future__ import annotations

import re

import pytest

import gentax
from conftest import JAVA, by_domain
from gentax.domains import domains, missing_modules
from gentax.wrappers import Calls, Layout, Menu, Rename, distract
from gentax.wrappers.distractors import SCIWORLD_THINGS, words_of

NAMES = [name for name in domains() if name != "sokoban"]  # which has tests of its own
WRAPPED = {
    "distract": lambda env: distract(env, volume=100),
    "generic": lambda env: distract(env, kind="generic"),
    "rename": Rename,
    "calls": Calls,
    "menu": Menu,
    "all": lambda env: distract(Layout(Menu(Calls(Rename(distract(env, kind="generic")))), "json")),
}


@pytest.fixture(params=by_domain(NAMES))
def name(request):
    if lacking := missing_modules(domains()[request.param]):
        pytest.skip(f"needs {lacking}")
    return request.param


def indices(name: str) -> range:
    return range(1 if name in JAVA else 3)  # episodes on Java take longer


def played(env, index):
    """Play the expert after two actions that do nothing; return the rewards, ends and bare observations."""
    env.reset(options={"index": index})
    answers = [env.step("nonsense")[1:], env.step("")[1:]]
    while not (answers[-1][1] or answers[-1][2]):
        answers.append((*env.step(env.expert().action)[1:], env.unwrapped.observation))
    return answers


def test_the_expert_wins_the_same_way(name):
    plain = gentax.make(name, reward="dense")
    expected = [played(plain, index) for index in indices(name)]
    for how, wrap in WRAPPED.items():
        env = wrap(gentax.make(name, reward="dense"))
        assert [played(env, index) for index in indices(name)] == expected, how
        env.close()
    assert all(episode[-1][3]["success"] for episode in expected)
    plain.close()


@pytest.mark.parametrize("kind", ["contextual", "generic"])
def test_what_is_added_is_the_name_of_nothing_that_can_be_acted_on(name, kind):
    env = distract(gentax.make(name), volume=150, kind=kind)
    assert kind == "generic" or env.generator.name == name.partition("-")[0]
    for index in indices(name):
        _, info = env.reset(options={"index": index})
        assert info["goal"] == env.unwrapped.goal
        over = False
        while not over:
            added = env.observation
            for part in re.split(r"\n|(?<=[.!?;]) ", env.unwrapped.observation):
                assert part in added
                added = added.replace(part, "", 1)
            for action in env.admissible():
                # What an action is about: all but its verb, numbers and small words.
                about = re.sub(r"^\w+( up)?|\b\d+\b|\bback to\b|[\[\]<>]|\busing\b.*", " ", action).strip()
                assert not about or not words_of(about) <= words_of(added), (action, added)
            _, _, terminated, truncated, _ = env.step(env.expert().action)
            over = terminated or truncated
    env.close()


@pytest.mark.jvm
def test_the_expert_takes_actions_that_a_full_menu_leaves_out():
    env = Menu(gentax.make("sciworld", split="test"))
    observation, _ = env.reset(options={"index": 5})
    assert "\n40 " in observation
    assert "\n41 " not in observation
    assert len(env.admissible()) > 40
    moves, over = [], False
    while not over:
        moves.append(env.expert().action)
        _, _, terminated, truncated, info = env.step(moves[-1])
        over = terminated or truncated
    assert info["success"]
    assert any(move.startswith("0 ") for move in moves)
    env.close()


@pytest.mark.jvm
def test_the_simulator_has_none_of_the_distracting_things():
    env = gentax.make("sciworld", split="test")
    for index in (0, 5):
        texts = [env.reset(options={"index": index})[0], *env.admissible()]
        while (move := env.expert()) is not None:
            texts.append(env.step(move.action)[0])
        assert not [thing for thing in SCIWORLD_THINGS if any(thing in text for text in texts)]
    env.close()

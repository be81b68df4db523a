"""The wrappers on ScienceWorld and TextWorldExpress, a few tasks only: they need Java."""

from __future__ import annotations

import pytest

import gentax
from gentax.domains import domains, missing_modules
from gentax.wrappers import Calls, Layout, Menu, Rename, distract
from gentax.wrappers.distractors import SCIWORLD_THINGS

pytestmark = pytest.mark.jvm

INDICES = (0, 5)
WRAPPED = {
    "distract": lambda env: distract(env, volume=100),
    "generic": lambda env: distract(env, kind="generic"),
    "rename": Rename,
    "all": lambda env: distract(Layout(Calls(Rename(distract(env, kind="generic"))), "json")),
}


@pytest.fixture(scope="module")
def plain():
    env = gentax.make("sciworld", split="test", reward="dense")
    yield env
    env.close()


def played(env, index):
    """Play the expert's moves after two that do nothing; return what was paid and how it ended."""
    env.reset(options={"index": index})
    answers = [env.step("nonsense"), env.step("")]
    while not (answers[-1][2] or answers[-1][3]):
        answers.append(env.step(env.expert().action))
    return [answer[1:] for answer in answers]


@pytest.mark.parametrize("name", WRAPPED)
def test_the_same_actions_do_the_same(name, plain):
    env = WRAPPED[name](gentax.make("sciworld", split="test", reward="dense"))
    try:
        for index in INDICES:
            assert played(env, index) == played(plain, index)
            assert env.unwrapped._history[1:] == plain._history[1:]  # the first was refused in words of its own
            assert played(env, index)[-1][-1]["success"]
    finally:
        env.close()


def test_the_simulator_has_none_of_the_distracting_things(plain):
    for index in INDICES:
        plain.reset(options={"index": index})
        actions = plain.admissible()
        while (move := plain.expert()) is not None:
            actions.append(plain.step(move.action)[0])
        assert not [thing for thing in SCIWORLD_THINGS if any(thing in text for text in actions)]


def test_a_menu_reaches_what_the_simulator_does_not_list(plain):
    env = Menu(plain)
    env.reset(options={"index": 5})
    assert len(env.observation.split("\n")) > 40
    over = False
    while not over:
        _, _, terminated, truncated, info = env.step(env.expert().action)
        over = terminated or truncated
    assert info["success"]


@pytest.mark.parametrize("name", ["twx-cooking", "twx-mapreader"])
def test_textworld_express_is_won_through_all_of_them(name):
    if name not in domains() or missing_modules(domains()[name]):
        pytest.skip("not here")
    env = distract(Layout(Menu(Calls(Rename(distract(gentax.make(name), kind="generic")))), "json"))
    assert env.generator.name == "twx"
    try:
        assert played(env, 0)[-1][-1]["success"]
    finally:
        env.close()

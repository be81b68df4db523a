"""TextWorldExpress as two domains: texts, expert, strange actions, and the Java process that both share."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from playing import play_expert

import gentax
from gentax.core import EnvironmentFault, UsageError
from gentax.domains import domain
from gentax.domains.twx import COOKING, FIRST, FOLD, FOLDS, MAPREADER, numbers
from gentax.domains.twx.env import GoldPathTracker, Simulator, content_of, exits, room_of, tidy

pytestmark = pytest.mark.jvm

NAMES = {"twx-cooking": COOKING, "twx-mapreader": MAPREADER}


@pytest.fixture(scope="module", autouse=True)
def jvm():
    """Keep one JVM through the module."""
    interface = Simulator()
    yield
    interface.close()


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def env(name):
    env = gentax.make(name, split="test", reward="dense")
    yield env
    env.close()


def test_domain_records_are_target_only_and_import_nothing_heavy():
    code = (
        "import sys; from gentax.domains import domains; domains()\n"
        "print([m for m in ('py4j', 'minigrid', 'pygame', 'textworld_express') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    for name, game in NAMES.items():
        record = domain(name)
        assert record.target_only
        assert record.default_level == game.default
        assert set(record.levels) == set(game.specs)
    with pytest.raises(UsageError, match="twx-cooking"):
        gentax.make("twx_cooking")


def test_folds_agree_with_the_package():
    interface = Simulator()
    for game in NAMES.values():
        expected = {fold: list(range(FIRST[split], FIRST[split] + FOLD)) for split, fold in FOLDS.items()}
        assert interface.folds(game.name) == expected
    interface.close()


def test_seeds_that_repeat_a_world_of_an_earlier_fold_are_left_out(name):
    """Of every level, all three folds; the repeated seeds are known, and no others."""
    game, interface = NAMES[name], Simulator()
    for level in set(game.specs) - {"hard"}:  # whose worlds never repeat, and take long to make
        first, repeated = {}, {}
        for split, fold in FOLDS.items():
            for seed in range(FOLD):
                made = interface.start_game(game.name, game.specs[level].parameters, FIRST[split] + seed, fold)
                content = content_of(game, made[0], made[1].look, made[2])
                if first.setdefault(content, split) != split:
                    repeated.setdefault(split, []).append(seed)
        for split in FOLDS:
            kept = [number for number in range(FOLD) if number not in repeated.get(split, ())]
            assert list(numbers(game.name, level, split)) == kept
    interface.close()


@pytest.mark.parametrize("level", ["easy", "medium", "hard"])
def test_the_expert_wins_the_harder_levels(name, level):
    env = gentax.make(name, level, split="test")
    for index in range(30):
        moves, rewards, success = play_expert(env, index)
        assert success, index
        assert rewards == [0.0] * (len(moves) - 1) + [1.0]
    env.close()


def test_the_expert_undoes_random_actions(env):
    won = sum(play_expert(env, index, slips=0.15)[2] for index in range(40))
    assert won >= (36 if env.game is MAPREADER else 20)  # food is easily spoiled for good
    env.reset(options={"index": 0})
    first = env.expert()
    env.step("look around")
    assert env.expert() == first
    assert not env.step("no such thing")[4]["valid"]
    assert env.expert() == first


def test_the_tracker_undoes_the_latest_action_first_and_skips_completed_steps():
    tracker = GoldPathTracker(["move north", "take knife", "eat meal"])
    assert tracker.next() == ("move north", False)
    tracker.observe("open fridge", False)
    tracker.observe("move south", True)
    tracker.observe("move south", False)  # a closed door
    assert tracker.next() == ("move north", True)
    tracker.observe("move north", True)
    assert tracker.next() == ("close fridge", True)
    tracker.observe("close fridge", False)
    tracker.observe("take knife", False)
    tracker.observe("move north", True)
    assert tracker.rest() == ("eat meal",)
    tracker.observe("put knife in oven", False)
    assert tracker.next() == ("take knife", True)
    tracker.observe("cook salt in oven", False)
    assert tracker.next() is None


def test_texts_are_shortened():
    look = (
        "You are in the kitchen. In one part of the room you see a stove. There is also An open fridge, that contains "
        "a raw pork chop, some salt, and a white onion. You also see a counter that has a red apple, and a cookbook on "
        "it. In another part of the room you see a trash can that is closed. There is also a dining chair, that has "
        "nothing on it. \nTo the North you see a closed patio door. Through an open plain door, to the South you see "
        "the pantry. To the East you see the spare room. "
    )
    assert tidy(look) == (
        "You are in the kitchen. You see stove, open fridge (raw pork chop, salt, white onion), counter (red apple, "
        "cookbook), trash can (closed), dining chair (empty). North: closed patio door. South: pantry (open plain "
        "door). East: spare room."
    )
    assert room_of(look) == "kitchen"
    assert exits(look) == {"pantry": "south", "spare room": "east"}
    recipe = (
        "Gather all.\n\nIngredients:\n  salt\n  red apple\n\nDirections:\n  slice the red apple\n  prepare meal\n\n"
    )
    assert tidy(recipe) == "Recipe: salt, red apple. Directions: slice the red apple, prepare meal."
    plan = "The map reads:\n  The bar connects to the salon.\n  The salon connects to the bar, attic and side yard.\n"
    assert tidy(plan) == "Map: bar: salon; salon: bar, attic, side yard."
    assert tidy("Inventory: \n  a map\n  some salt\n") == "You carry map, salt."
    empty = "Inventory (maximum capacity is 5 items): \n  Your inventory is currently empty.\n"
    assert tidy(empty) == "You carry nothing (at most 5 things)."
    assert tidy("You eat the meal.  It is delicious.\n") == "You eat the meal. It is delicious."


def test_a_task_is_deterministic_whatever_is_played_in_parallel(name):
    one, two, other = (gentax.make(name, "hard", split="test") for _ in range(3))
    rng = random.Random(0)
    for index in range(4):
        assert one.reset(options={"index": index}) == two.reset(options={"index": index})
        other.reset(options={"index": index + 9})
        for _ in range(25):
            assert one.admissible() == two.admissible()
            action = rng.choice(one.admissible())
            answer = one.step(action)
            other.step(rng.choice(other.admissible()))
            assert answer == two.step(action)
            if one._over or other._over:
                break
    for env in (one, two, other):
        env.close()


def test_names_with_capitals_are_accepted_in_any_case():
    env = gentax.make("twx-cooking", "hard", split="validation")
    for asked in ("examine TV stand", "EXAMINE tv  stand"):
        env.reset(options={"index": 1})
        while "examine TV stand" not in env.admissible():
            env.step(env.expert().action)
        observation, *_, info = env.step(asked)
        assert info["valid"]
        assert "TV stand" in observation
    env.close()


def test_food_that_is_eaten_early_ends_the_game():
    env = gentax.make("twx-cooking", "easy", split="test")
    eaten = ""
    for index in range(20):
        env.reset(options={"index": index})
        env.step("open fridge")
        for action in env.admissible():
            if action.startswith("take "):
                env.step(action)
        eaten = next((action for action in env.admissible() if action.startswith("eat ")), "")
        if eaten:
            break
    _, reward, terminated, _, info = env.step(eaten)
    assert (reward, terminated, info["success"]) == (0.0, True, False)
    env.close()


def test_a_jvm_that_dies_is_a_fault_and_the_next_reset_restarts_it():
    envs = [gentax.make(name, split="test") for name in NAMES]
    for env in envs:
        env.reset(options={"index": 0})
    dead = envs[0]._server.process_id
    assert envs[1]._server.process_id == dead  # one for both domains
    assert "-Xmx" in Path(f"/proc/{dead}/cmdline").read_text()
    os.kill(dead, signal.SIGKILL)
    for env in envs:
        with pytest.raises(EnvironmentFault):
            env.step("look around")
        with pytest.raises(EnvironmentFault):
            env.step("look around")
    for env in envs:
        env.reset(options={"index": 0})
        assert env.step("look around")[4]["valid"]
    alive = envs[0]._server.process_id
    assert alive == envs[1]._server.process_id != dead
    os.kill(alive, signal.SIGKILL)  # between episodes: reset finds out and starts another at once
    for env in envs:
        env.reset(options={"index": 0})
        assert env.expert() is not None
        env.close()

"""BabyAI as a domain: what is seen and refused, the expert, splits and repeats, strange actions."""

from __future__ import annotations

import random

import numpy as np
import pytest
from minigrid.core.world_object import Ball, Box, Door, Key, Wall
from playing import play_expert

import gentax
from gentax.core import SPLITS, UsageError, split_of
from gentax.domains.babyai import DOMAIN, KINDS, LevelKind
from gentax.domains.babyai.env import ACTIONS, content_of, draw, make_world, place, view


@pytest.fixture
def env():
    return gentax.make("babyai", split="test")


def state(env) -> tuple:
    world = env._world
    return content_of(world), tuple(world.agent_pos), world.agent_dir, world.carrying, world.step_count


def put_ahead(env, thing) -> None:
    """Start a task and put a thing in front of the agent, which carries nothing."""
    env.reset(options={"index": 0})
    env._world.grid.set(*env._world.front_pos, thing)


@pytest.mark.parametrize("level", [level for level in KINDS if level != DOMAIN.default_level])
def test_the_expert_wins_the_harder_levels(level):
    env = gentax.make("babyai", level, split="test")
    assert all(play_expert(env, index)[2] for index in range(12))


def test_the_expert_recovers_from_random_actions_or_gives_no_action(env):
    assert sum(play_expert(env, index, slips=0.2)[2] for index in range(60)) >= 54
    put_ahead(env, Box("red"))
    assert env.expert() is not None
    env.step("toggle")  # the bot gives up once a box was opened
    assert env.expert() is None
    assert env.step("turn left")[4]["valid"]
    assert env.expert() is None
    env.reset(options={"index": 1})
    assert env.expert() is not None


def test_the_expert_s_thoughts_mention_what_it_sees():
    env = gentax.make("babyai", split="test")
    thoughts = " ".join(move.thought for index in range(30) for move in play_expert(env, index)[0])
    for part in ("I have not seen the ", " is 1 ahead: pick it up.", " ahead 1 left: ", " behind"):
        assert part in thoughts


def test_the_view_as_text():
    image = np.zeros((7, 7, 3), dtype=np.uint8)
    image[:, 1:] = (1, 0, 0)  # empty
    image[:, 1] = (2, 5, 0)  # a wall 5 ahead; what is behind is unseen
    image[3, 1] = (4, 4, 2)  # but for a locked door
    image[2, 4] = (6, 0, 0)
    image[5, 6] = (5, 2, 0)
    assert view(image, 0) == (
        "You face east. You see a blue key 2 right, a red ball 2 ahead 1 left, a locked yellow door 5 ahead. "
        "You carry nothing."
    )
    image[3, 6] = (7, 3, 0)
    image[3, 3] = (2, 5, 0)
    assert view(image, 3).endswith("a wall 3 ahead. You carry a purple box.")
    assert place(-2, 1) == "2 behind 1 right"


def test_actions_without_effect_are_invalid_and_say_why(env):
    put_ahead(env, Wall())
    before = state(env)
    for action, reason in {
        "go forward": "The wall is in the way.",
        "pick up": "There is nothing to pick up",
        "drop": "You carry nothing.",
        "toggle": "There is nothing to toggle",
        "done": "It is not done yet.",
        "jump": "Unknown action.",
    }.items():
        observation, reward, terminated, _, info = env.step(action)
        assert observation.startswith(reason)
        assert observation.endswith(env._seen)
        assert (reward, terminated, info) == (0.0, False, {"valid": False, "success": False})
    assert state(env) == before
    assert env.admissible() == ["turn left", "turn right"]


def test_a_locked_door_needs_its_key_and_one_object_can_be_carried(env):
    put_ahead(env, Door("red", is_locked=True))
    assert env.step("toggle")[0].startswith("The red door is locked: it takes a red key.")
    env._world.carrying = Key("blue")
    assert not env.step("toggle")[4]["valid"]
    env._world.carrying = Key("red")
    assert env.step("toggle")[4]["valid"]
    put_ahead(env, Ball("grey"))
    assert env.step("pick up")[0].endswith("You carry a grey ball.")
    env._world.grid.set(*env._world.front_pos, Ball("red"))
    assert env.step("pick up")[0].startswith("You carry the grey ball already.")
    assert env.step("drop")[0].startswith("The red ball is in the way.")


@pytest.mark.parametrize("level", ["small", "rooms"])
def test_exactly_the_admissible_actions_are_valid_and_change_the_state(level):
    env = gentax.make("babyai", level, split="test")
    rng = random.Random(0)
    for index in range(9):
        env.reset(options={"index": index})
        over = False
        while not over:
            admissible, before = env.admissible(), state(env)
            action = rng.choice(list(ACTIONS))
            _, reward, terminated, truncated, info = env.step(action)
            assert info["valid"] == (action in admissible)
            assert (state(env) != before) == info["valid"]
            assert 0 <= reward <= 1
            over = terminated or truncated


def test_tasks_alternate_between_the_kinds_of_a_level(env):
    assert [env.reset(options={"index": index})[1]["goal"].split()[0] for index in range(4)] == ["Go", "Pick"] * 2
    env = gentax.make("babyai", "small")
    verbs = [env.reset(options={"index": index})[1]["goal"].split()[0] for index in range(6)]
    assert verbs == ["Go", "Go", "Pick"] * 2
    assert env.size("train") == env.size("test") == 1_000_000
    with pytest.raises(UsageError, match="small"):
        gentax.make("babyai", "smal")


@pytest.mark.slow
def test_splits_share_no_start_and_the_repeats_of_the_smallest_level_are_known():
    """Of the first 999 test tasks of the smallest level 46 begin as an earlier one does, all of them with one thing."""
    env = gentax.make("babyai", "small")
    starts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for split, count in (("train", 300), ("validation", 300), ("test", 999)):
        for index in range(count):
            _, info = env.reset(options={"index": index, "split": split})
            assert split_of(info["content"]) == split
            starts[split].append(info["content"])
    assert len(set().union(*starts.values())) == sum(len(set(one)) for one in starts.values())
    repeats = [333 - len(set(starts["test"][kind::3])) for kind in range(3)]
    assert repeats == [46, 0, 0]


def test_a_rotated_world_has_the_same_content_hash():
    world = make_world(LevelKind("PickupLoc"))
    draw(world, "test", 5)
    before = content_of(world)
    (x, y), height = world.agent_pos, world.grid.height
    world.grid = world.grid.rotate_left()
    assert content_of(world) != before
    world.agent_pos, world.agent_dir = (y, height - 1 - x), (world.agent_dir - 1) % 4
    assert content_of(world) == before


def test_dense_rewards_are_those_of_minigrid():
    env = gentax.make("babyai", split="test", reward="dense", horizon=1000)
    moves, rewards, _ = play_expert(env, 2)
    assert rewards[:-1] == [0.0] * (len(moves) - 1)
    assert rewards[-1] == pytest.approx(1 - 0.9 * len(moves) / env._world.max_steps)


def test_nothing_is_printed(capfd):
    world = make_world(LevelKind("PickupLoc", {"room_size": 6}))  # throws many drafts away
    for seed in range(5):
        draw(world, "test", seed)
    print("heard")
    assert capfd.readouterr().out == "heard\n"


def test_render_shows_the_goal_and_the_grid(env):
    assert env.render() == ""
    observation, info = env.reset(options={"index": 2})
    assert info["goal"] in env.render()
    assert env.render().endswith(observation)
    assert "WG" in env.render()

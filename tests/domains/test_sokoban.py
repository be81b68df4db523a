"""Sokoban: tasks, expert, rules and text. Settings and rooms from files have test files of their own."""

from __future__ import annotations

import random
from collections import deque

import gymnasium
import pytest

from gentax.core import SPLITS, Task, split_of
from gentax.domains.sokoban import NAMED
from gentax.domains.sokoban.board import PLAYER_BITS, deltas, move
from gentax.domains.sokoban.env import Sokoban
from gentax.domains.sokoban.rooms import content_of, layouts, start_of


def play(tmp_path, picture: str, **settings) -> Sokoban:
    """Start an episode in the room that `picture` shows."""
    file = tmp_path / "room.xsb"
    file.write_text(picture)
    env = Sokoban(xsb=file, **settings)
    split = next(split for split in SPLITS if env.size(split))
    env.reset(options={"index": 0, "split": split})
    return env


def shortest(room) -> int | None:
    """Solve a room the plain way, forwards: the reference for the search under test."""
    queue, seen = deque([(room.start, 0)]), {room.start}
    while queue:
        state, made = queue.popleft()
        if state >> PLAYER_BITS == room.targets:
            return made
        for delta in deltas(room.columns):
            after = move(room.walls, state, delta)
            if after not in seen:
                seen.add(after)
                queue.append((after, made + 1))
    return None


# Tasks.

GOLDEN = "Walls 2,4 3,4 4,1. Target 3,2. Box 2,2. You 2,3."


def test_a_task_never_changes():
    """A golden text: whoever changes the generator changes every published figure."""
    assert Sokoban("6x6").reset(options={"index": 0, "split": "test"})[0] == GOLDEN


def test_splits_share_no_room_even_rotated_or_mirrored():
    def turned(room):
        """Return all eight pictures of the walls and targets."""
        cells = [
            [(room.walls >> row * 6 + column & 1) + 2 * (room.targets >> row * 6 + column & 1) for column in range(6)]
            for row in range(6)
        ]
        for _ in range(4):
            cells = [list(line) for line in zip(*cells[::-1], strict=True)]
            yield str(cells)
            yield str([line[::-1] for line in cells])

    seen = {split: set() for split in SPLITS}
    for split, pictures in seen.items():
        for index in range(1000):
            room, _, content = start_of(NAMED["6x6"], Task("sokoban", "6x6", split, index))
            assert split_of(content) == split
            pictures.update(turned(room))
    assert len(set.union(*seen.values())) == sum(map(len, seen.values()))


@pytest.mark.parametrize(("level", "rooms", "starts"), [("6x6-far", 329, 2530), ("7x7-1-8-12", 200, 200)])
def test_test_tasks_repeat_rooms_only_when_all_are_used_and_never_a_start(level, rooms, starts):
    """Of a small level all rooms are known; of a larger one, those that are drawn again are passed over."""
    env = Sokoban(level, split="test")
    seen, begun = [], set()
    for task in env.tasks("test", starts):
        _, info = env.reset(options={"task": task})
        seen.append(info["content"])
        begun.add((env.room, env.state))
    assert len(set(seen[:rooms])) == rooms
    assert set(seen) == set(seen[:rooms])
    assert len(begun) == starts
    if level == "6x6-far":
        assert env.size("test") == starts


def test_a_room_sampled_before_is_skipped(monkeypatch):
    """Among 400 rooms of a level with few layouts, drawn by chance, some would repeat."""
    spec = NAMED["6x6"]
    monkeypatch.setattr("gentax.domains.sokoban.rooms.FEW_LAYOUTS", 0)
    tasks = [Task("sokoban", "6x6", "test", index) for index in range(200)]
    assert len({start_of(spec, task).content for task in tasks}) == 200
    monkeypatch.setattr("gentax.domains.sokoban.rooms.MANY_LAYOUTS", 0)
    assert len({start_of(spec, task).content for task in tasks}) < 190


def test_the_content_hash_ignores_symmetries_and_outer_walls():
    walls = (
        [(0, c) for c in range(5)] + [(3, c) for c in range(5)] + [(r, c) for r in (1, 2) for c in (0, 4)] + [(1, 2)]
    )

    def content(places, target, rows, columns):
        return content_of(
            rows, columns, sum(1 << r * columns + c for r, c in places), 1 << target[0] * columns + target[1]
        )

    here = content(walls, (2, 1), 4, 5)
    assert here == content([(c, r) for r, c in walls], (1, 2), 5, 4)
    assert here == content([(3 - r, 4 - c) for r, c in walls], (1, 3), 4, 5)
    thicker = [(r + 1, c) for r, c in walls] + [(0, c) for c in range(5)]
    assert here == content(thicker, (3, 1), 5, 5)
    assert here != content(walls, (2, 2), 4, 5)
    assert layouts(NAMED["6x6"]) == 31_056


@pytest.mark.parametrize("level", ["6x6", "6x6-far", "6x6-long", "7x7-2", "8x8-2"])
def test_expert_solves_test_tasks_at_optimal_length(level):
    env, spec = Sokoban(level), NAMED[level]
    lengths = set()
    for index in range(200 if level == "6x6" else 40):
        env.reset(options={"index": index, "split": "test"})
        plan = env.distance()
        assert spec.shortest <= plan <= spec.longest <= env.horizon
        if index < 40:
            assert plan == shortest(env.room)
        for left in range(plan, 0, -1):
            assert env.distance() == left
            chosen = env.expert()
            assert chosen.action in env.admissible()
            assert 0 < len(chosen.thought.split()) <= 14
            _, reward, terminated, truncated, info = env.step(chosen.action)
        assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)
        assert env.expert() is None
        lengths.add(plan)
    assert {spec.shortest, spec.longest} <= lengths or level != "6x6"


def test_large_rooms_are_solved_after_random_actions():
    env, rng = Sokoban("10x10-3", horizon=10_000), random.Random(0)
    solved = 0
    for index in range(4):
        env.reset(options={"index": index})
        for _ in range(12):
            env.step(rng.choice(env.admissible()))
        while (chosen := env.expert()) is not None:
            left = env.distance()
            done = env.step(chosen.action)[2]
            assert env.distance() == left - 1
            solved += done
    assert solved >= 2


def test_a_deadlock_has_no_plan(tmp_path):
    env = play(tmp_path, "######\n#    #\n# $@ #\n# .  #\n######")
    assert env.distance() is not None
    env.step("left")
    assert env.distance() is None
    assert env.expert() is None


def test_rooms_from_files_are_solved_optimally(tmp_path):
    for picture in ("#######\n#     #\n# $@  #\n#   . #\n#     #\n#######", TWO_BOXES):
        env = play(tmp_path, picture)
        assert env.distance() == shortest(env.room) > 0


# Rules and text.

TWO_BOXES = "#######\n#  .  #\n# $$@ #\n#  .  #\n#     #\n#######"


def test_walk_push_and_blocked(tmp_path):
    env = play(tmp_path, "#######\n#     #\n#@$ . #\n#     #\n#######")
    assert env.goal == "Push the box onto the target of this 5 by 7 room."
    assert env.observation == "Target 2,4. Box 2,2. You 2,1."
    assert env.admissible() == ["up", "down", "right"]
    observation, reward, *_, info = env.step("left")
    assert (observation, reward, info["valid"]) == ("Blocked. Target 2,4. Box 2,2. You 2,1.", 0.0, False)
    assert env.step("right")[0] == "Target 2,4. Box 2,3. You 2,2."
    assert env.expert().thought == "Push box 2,3 right from 2,2; I stand there."
    env.step("up")
    assert env.observation == "Target 2,4. Box 2,3. You 1,2."
    assert env.expert().thought == "Push box 2,3 right from 2,2; go down to get there."
    env.step("down")
    observation, reward, terminated, _, info = env.step("right")
    assert (observation, reward, terminated) == ("Target 2,4. Box 2,4. You 2,3.", 1.0, True)
    assert info == {"valid": True, "success": True}
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("up")


def test_a_box_can_leave_its_target(tmp_path):
    env = play(tmp_path, "########\n#      #\n#@*  $.#\n#      #\n########", rendering="grid")
    assert "@*__$." in env.observation
    env.step("right")
    assert "_+$_$." in env.observation


@pytest.mark.parametrize("rendering", ["coordinates", "grid", "both"])
def test_renderings(tmp_path, rendering):
    coordinates = "Walls 3,4. Targets 2,4 3,2. Boxes 2,2 3,3. You 2,1."
    picture = "#######\n#     #\n#@$ . #\n# .$# #\n#######"
    env = play(tmp_path, picture, rendering=rendering)
    grid = picture.replace(" ", "_")
    assert env.observation == {"coordinates": coordinates, "grid": grid, "both": f"{coordinates}\n{grid}"}[rendering]
    assert ("$ box" in env.goal) == (rendering != "coordinates")
    assert "██" in env.render()


def test_case_and_space_do_not_matter():
    one, other = Sokoban(), Sokoban()
    for env in (one, other):
        env.reset(options={"index": 5})
    for action in one.admissible():
        assert one.step(action) == other.step(f"  {action.upper()}\n")

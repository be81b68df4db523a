"""The package's worlds: how one is made and sampled for a task, and how it is described in words.

The split of a start is decided by a hash of all that it is: the grid as seen from the agent, so that a turned room is
the same, and the mission. No start of one split is ever in the other. Within a split small rooms
repeat: with one thing in 4 by 4 cells there are some 2,000 starts, so that of the first 999 test tasks of level `small`
27 begin as an earlier one does. Rooms with four things or more did not repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import minigrid.envs.babyai as babyai
import numpy as np
from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT, OBJECT_TO_IDX
from minigrid.envs.babyai.core import roomgrid_level

from gentax.core.env import content_hash, split_of, stable_seed
from gentax.domains.babyai import LevelKind


def _silent(*_: object) -> None:
    """Take the place of `print` in the package's module of levels, which tells of every draft that it throws away.

    Standard output is redirected for no one: it belongs to the whole process, this name to that module alone.
    """


roomgrid_level.print = _silent


def make_world(kind: LevelKind) -> Any:
    """Return one of the package's environments."""
    return getattr(babyai, kind.name)(**kind.settings)


def draw(world: Any, split: str, seed: int) -> Mapping[str, Any]:
    """Start the world that `seed` stands for, the first of its split among those drawn; return what is seen first."""
    attempt = 0
    while True:
        seen, _ = world.reset(seed=stable_seed("babyai", seed, attempt))
        if split_of(content_of(world)) == split:
            return seen
        attempt += 1


def content_of(world: Any) -> str:
    """Return a hash of the present state of a world, the same however it is turned."""
    return content_hash("babyai", whole(world).hex())


def whole(world: Any) -> bytes:
    """Return all of the present state of a world, the same however it is turned."""
    grid = world.grid.encode()
    grid[tuple(world.agent_pos)] = OBJECT_TO_IDX["agent"]
    grid = np.rot90(grid, -(world.agent_dir + 1))  # the agent looks up, as in what it sees
    return f"{grid.shape}{world.mission}".encode() + grid.tobytes()


# What the agent sees, in words: its heading, the things in sight by their place, the wall ahead, what it carries.
#
# Places are counted in cells from the agent: "a red ball 2 ahead 1 left". The nearest comes first. Left out: walls
# but the one straight ahead, and what the agent cannot see, as in the package's own observations.


HEADINGS = ("east", "south", "west", "north")  # of the package's directions 0 to 3
_NOTHING = frozenset(OBJECT_TO_IDX[name] for name in ("unseen", "empty", "floor", "wall", "agent"))
_WALL, _UNSEEN = OBJECT_TO_IDX["wall"], OBJECT_TO_IDX["unseen"]
_DOOR = OBJECT_TO_IDX["door"]
_DOORS = ("an open", "a closed", "a locked")  # by the state of a door


def view(image: Any, heading: int) -> str:
    """Return what is seen in words.

    Args:
        image: the package's observation, columns × rows × (object, colour, state); the agent is in the middle of the
            last row and looks at the first.
        heading: 0 to 3.
    """
    columns = image.tolist()
    middle, last = len(columns) // 2, len(columns[0]) - 1
    found = []
    for column, cells in enumerate(columns):
        for row, (kind, colour, state) in enumerate(cells):
            if kind not in _NOTHING and (row != last or column != middle):
                ahead, right = last - row, column - middle
                found.append((ahead + abs(right), ahead, right, name_of(kind, colour, state)))
    seen = [f"{name} {place(ahead, right)}" for _, ahead, right, name in sorted(found)]
    straight = columns[middle]
    for ahead in range(1, last + 1):
        kind = straight[last - ahead][0]
        if kind == _WALL:
            seen.append(f"a wall {ahead} ahead")
        if kind in (_WALL, _UNSEEN):
            break
    kind, colour, state = straight[last]  # what is carried is shown where the agent is
    carried = "nothing" if kind in _NOTHING else name_of(kind, colour, state)
    shown = f" You see {', '.join(seen)}." if seen else ""
    return f"You face {HEADINGS[heading]}.{shown} You carry {carried}."


def place(ahead: int, right: int) -> str:
    """Return a place in words, for example "2 ahead 1 left"."""
    parts = [f"{abs(ahead)} {'ahead' if ahead > 0 else 'behind'}"] if ahead else []
    parts += [f"{abs(right)} {'right' if right > 0 else 'left'}"] if right else []
    return " ".join(parts)


def name_of(kind: int, colour: int, state: int) -> str:
    """Return a thing in words, from the package's numbers for it."""
    article = _DOORS[state] if kind == _DOOR else "a"
    return f"{article} {IDX_TO_COLOR[colour]} {IDX_TO_OBJECT[kind]}"


def called(thing: Any) -> str:
    """Return one of the package's objects in words, without an article."""
    return f"{thing.color} {thing.type}"

"""The package's worlds: made, drawn for a task, and told apart by split.

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
from minigrid.core.constants import OBJECT_TO_IDX
from minigrid.envs.babyai.core import roomgrid_level

from gentax.core.task import content_hash, split_of, stable_seed
from gentax.domains.babyai.levels import Kind


def _silent(*_: object) -> None:
    """Take the place of `print` in the package's module of levels, which tells of every draft that it throws away.

    Standard output is redirected for no one: it belongs to the whole process, this name to that module alone.
    """


roomgrid_level.print = _silent


def make_world(kind: Kind) -> Any:
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

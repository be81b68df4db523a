"""The room and its one rule: where the player stands, where the boxes stand, what a step does to them.

A cell is a number, row * columns + column; a set of cells is an integer with those bits set; a state is the boxes and
the player in one integer. States are therefore cheap to copy, to compare and to look up, which the searches live on.
The border of every room is wall, so that a step from a floor cell never leaves the grid or wraps around.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

PLAYER_BITS = 12  # rooms of up to 4,096 cells
PLAYER = (1 << PLAYER_BITS) - 1
ACTIONS = ("up", "down", "left", "right")


@dataclass(frozen=True, slots=True)
class Room:
    """Walls and targets, which never change, and the state at the start."""

    rows: int
    columns: int
    walls: int  # cells
    targets: int  # cells
    start: int  # state


def state_of(player: int, boxes: int) -> int:
    """Return the state with the player on cell `player` and boxes on the cells `boxes`."""
    return boxes << PLAYER_BITS | player


@cache
def deltas(columns: int) -> tuple[int, int, int, int]:
    """Return what each of `ACTIONS` adds to a cell."""
    return -columns, columns, -1, 1


def move(walls: int, state: int, delta: int) -> int:
    """Return the state after a step by `delta`; the same state when the step is blocked."""
    to = (state & PLAYER) + delta
    if walls >> to & 1:
        return state
    boxes = state >> PLAYER_BITS
    if boxes >> to & 1:
        beyond = to + delta
        if (walls | boxes) >> beyond & 1:
            return state
        boxes ^= 1 << to | 1 << beyond
    return boxes << PLAYER_BITS | to


def cells(mask: int) -> list[int]:
    """Return the cells of a set, in order."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found


def reach(start: int, free: int, columns: int) -> int:
    """Return the cells of `free` that can be walked to from the cells `start`."""
    region = start
    while True:
        wider = (region | region << 1 | region >> 1 | region << columns | region >> columns) & free
        if wider == region:
            return region
        region = wider


@cache
def border(rows: int, columns: int) -> int:
    """Return the cells of the outer wall."""
    return sum(
        1 << row * columns + column
        for row in range(rows)
        for column in range(columns)
        if row in (0, rows - 1) or column in (0, columns - 1)
    )

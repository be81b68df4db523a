"""Sokoban's board: the state, the one rule of movement, the observation as text, and the solver.

A cell is a number, row * columns + column; a set of cells is an integer with those bits set; a state is the boxes and
the player in one integer. States are therefore cheap to copy, compare and look up, which the searches depend on.
The border of every room is wall, so a step from a floor cell never leaves the grid or wraps around.

The solver says exactly how many moves a state is from solved, and which move is next. Two searches meet. The first runs
backwards from all solved states at once, by pulls, one complete layer after the
other: layer d holds exactly the states whose optimal plan has d moves. In small rooms it reaches every solvable
state. In large ones it stops at `TABLE_LIMIT` states; a state beyond is searched forwards, in layers too. The first
of its layers to touch the table gives the optimal plan: a plan of depth + k moves is after k moves in the deepest
layer. Where that search also reaches its limit (in large rooms from files) no plan is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from gentax.core.errors import unknown

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
def everything(rows: int, columns: int) -> int:
    """Return all cells of a grid."""
    return (1 << rows * columns) - 1


@cache
def border(rows: int, columns: int) -> int:
    """Return the cells of the outer wall."""
    return sum(
        1 << row * columns + column
        for row in range(rows)
        for column in range(columns)
        if row in (0, rows - 1) or column in (0, columns - 1)
    )


# A room as text: short coordinates (what small models learn best from), a grid of symbols, or both; and a picture.

RENDERINGS = ("coordinates", "grid", "both")
_KEYS = ("wall", "floor", "target", "box", "box_on_target", "player", "player_on_target")
SYMBOLS = dict(zip(_KEYS, "#_.$*@+", strict=True))
PICTURE = dict(zip(_KEYS, ("██", "  ", "··", "[]", "{}", "()", "<>"), strict=True))
LEGEND = ("player", "box", "target", "box_on_target", "player_on_target")  # of the picture


class Renderer:
    """Writes states of a room as observations.

    Args:
        rendering: one of `RENDERINGS`.

    Raises:
        UsageError: an unknown rendering.
    """

    def __init__(self, rendering: str = "coordinates") -> None:
        if rendering not in RENDERINGS:
            raise unknown("rendering of sokoban", rendering, RENDERINGS)
        self.rendering = rendering
        self.legend = ""  # what the signs mean, where an observation has any
        if rendering != "coordinates":
            self.legend = ", ".join(f"{sign} {_about(key)}" for key, sign in SYMBOLS.items())
        self._rest = ""

    def set_room(self, room: Room) -> None:
        """Turn to `room`."""
        self._room, self._boxes = room, -1
        self._places = places(room.rows, room.columns)
        self._you = _you_at(room.rows, room.columns)
        inner = room.walls & ~border(room.rows, room.columns)
        walls = f"Walls {self._list(inner)}. " if inner else ""
        self._fixed = f"{walls}{self._named('Target', 'Targets', room.targets)}. "

    def text(self, state: int) -> str:
        """Return the observation of `state`."""
        if self.rendering == "coordinates":
            return self._coordinates(state)
        grid = _grid(self._room, state, SYMBOLS)
        return grid if self.rendering == "grid" else f"{self._coordinates(state)}\n{grid}"

    def picture(self, state: int) -> str:
        """Return the room drawn for a person, two characters a cell, and what they mean."""
        legend = "  ".join(f"{PICTURE[key]} {_about(key)}" for key in LEGEND)
        return f"{_grid(self._room, state, PICTURE)}\n{legend}"

    def _coordinates(self, state: int) -> str:
        boxes = state >> PLAYER_BITS
        if boxes != self._boxes:  # most steps only walk
            self._boxes = boxes
            self._rest = f"{self._fixed}{self._named('Box', 'Boxes', boxes)}. "
        return self._rest + self._you[state & PLAYER]

    def _named(self, one: str, several: str, mask: int) -> str:
        return f"{one if mask & (mask - 1) == 0 else several} {self._list(mask)}"

    def _list(self, mask: int) -> str:
        return " ".join([self._places[cell] for cell in cells(mask)])


@cache
def places(rows: int, columns: int) -> tuple[str, ...]:
    """Return every cell as `row,column`, counted from 0."""
    return tuple(f"{row},{column}" for row in range(rows) for column in range(columns))


@cache
def _you_at(rows: int, columns: int) -> tuple[str, ...]:
    return tuple(f"You {place}." for place in places(rows, columns))


def _grid(room: Room, state: int, symbols: Mapping[str, str]) -> str:
    player, boxes = state & PLAYER, state >> PLAYER_BITS
    lines = []
    for row in range(room.rows):
        line = []
        for cell in range(row * room.columns, (row + 1) * room.columns):
            if room.walls >> cell & 1:
                key = "wall"
            else:
                key = "player" if cell == player else "box" if boxes >> cell & 1 else "floor"
                if room.targets >> cell & 1:
                    key = "target" if key == "floor" else f"{key}_on_target"
            line.append(symbols[key])
        lines.append("".join(line))
    return "\n".join(lines)


def _about(key: str) -> str:
    return "you" + key[6:].replace("_", " ") if key.startswith("player") else key.replace("_", " ")


TABLE_LIMIT = 60_000  # states; a table of that size takes about 0.1 s and 10 MB
FORWARD_LIMIT = 60_000


class DistanceTable:
    """Optimal plan lengths, in moves, of the states of one room. Grows when asked for what it does not hold yet."""

    def __init__(self, rows: int, columns: int, walls: int, targets: int) -> None:
        self.columns, self.walls, self.targets = columns, walls, targets
        self.floor = floor = everything(rows, columns) ^ walls
        self.depth = 0  # the deepest complete layer
        solved = targets << PLAYER_BITS
        self.layer = [solved | cell for cell in cells(floor & ~targets)]  # the states of the deepest layer
        self.known: dict[int, int | None] = dict.fromkeys(self.layer, 0)
        self._pushes: dict[int, int] | None = None
        # For each cell the player may have come to: by which delta, over which cell, and what then lies ahead.
        bit = PLAYER_BITS
        self._back = {
            cell: [
                (delta, 1 << cell - delta + bit, 1 << cell + delta + bit, (1 << cell + bit) - (1 << cell + delta + bit))
                for delta in deltas(columns)
                if floor >> cell - delta & 1
            ]
            for cell in cells(floor)
        }

    def grow(self) -> bool:
        """Search one more complete layer. Return whether it holds a state."""
        known, back = self.known, self._back
        self.depth += 1
        depth = self.depth
        layer: list[int] = []
        for state in self.layer:
            for delta, behind, ahead, pull in back[state & PLAYER]:
                if state & behind:
                    continue
                before = state - delta
                if before not in known:
                    known[before] = depth
                    layer.append(before)
                if state & ahead:
                    before += pull
                    if before not in known:
                        known[before] = depth
                        layer.append(before)
        self.layer = layer
        return bool(layer)

    def of(self, state: int) -> int | None:
        """Return the optimal moves left from `state`; None when there is no plan, or none within the limits."""
        known = self.known
        while state not in known and self.layer and len(known) < TABLE_LIMIT:
            self.grow()
        if state not in known:
            if self.layer:
                self._meet(state)
            else:
                known[state] = None
        return known[state]

    def best(self, state: int) -> int | None:
        """Return which of `ACTIONS` (its number) begins a plan; the first in their order. None when there is none."""
        left = self.of(state)
        if not left:
            return None
        for number, delta in enumerate(deltas(self.columns)):
            after = move(self.walls, state, delta)
            if self.known.get(after) == left - 1:
                return number
        raise AssertionError(f"no action of {ACTIONS} shortens a plan of {left} moves")

    @property
    def pushes(self) -> dict[int, int]:
        """The fewest pushes from each cell to a target for a box alone in the room; dead cells are not in it."""
        if self._pushes is None:
            layer = cells(self.targets)
            self._pushes = found = dict.fromkeys(layer, 0)
            for cell in layer:  # grows while it is walked: a breadth-first queue
                for delta in deltas(self.columns):
                    before = cell - delta
                    if before not in found and self.floor >> before & 1 and self.floor >> before - delta & 1:
                        found[before] = found[cell] + 1
                        layer.append(before)
        return self._pushes

    def _meet(self, state: int) -> None:
        """Search forwards from `state` until a layer touches the table; write down what was learned."""
        known, walls, steps = self.known, self.walls, deltas(self.columns)
        dead = self.floor & ~sum(1 << cell for cell in self.pushes)
        parent: dict[int, int | None] = {state: None}
        layer = [state]
        while layer and len(parent) < FORWARD_LIMIT:
            wider: list[int] = []
            for before in layer:
                for delta in steps:
                    after = move(walls, before, delta)
                    if after in parent or (after >> PLAYER_BITS) & dead:
                        continue
                    parent[after] = before
                    left = known.get(after)
                    if left is not None:
                        trail: int | None = before
                        while trail is not None:
                            left += 1
                            known[trail] = left
                            trail = parent[trail]
                        return
                    wider.append(after)
            layer = wider
        if not layer:
            for seen in parent:  # nothing solved can be reached from any of them
                known[seen] = None
            return
        known[state] = None

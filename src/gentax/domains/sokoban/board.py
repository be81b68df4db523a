"""Sokoban's board: the state, the one rule of movement, and the observation as text.

A cell is a number, row * columns + column; a set of cells is an integer with those bits set; a state is the boxes and
the player in one integer. States are therefore cheap to copy, compare and look up, which the searches depend on.
The border of every room is wall, so a step from a floor cell never leaves the grid or wraps around.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from gentax.core.errors import UsageError, unknown

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


# A room as text: short coordinates (what small models learn best from), a grid of symbols, or both; and a picture.


RENDERINGS = ("coordinates", "grid", "both")
SYMBOLS = {
    "wall": "#",
    "floor": "_",
    "target": ".",
    "box": "$",
    "box_on_target": "*",
    "player": "@",
    "player_on_target": "+",
}
WORDS = {"wall": "Wall", "target": "Target", "box": "Box", "player": "You"}
PICTURE = {
    "wall": "██",
    "floor": "  ",
    "target": "··",
    "box": "[]",
    "box_on_target": "{}",
    "player": "()",
    "player_on_target": "<>",
}

LEGEND = ("player", "box", "target", "box_on_target", "player_on_target")  # of the picture


class Renderer:
    """Writes states of a room as observations.

    Args:
        rendering: one of `RENDERINGS`.
        symbols: other signs for things (keys of `SYMBOLS`); coordinates use them as words.

    Raises:
        UsageError: an unknown rendering or key, or signs that cannot be told apart.
    """

    def __init__(self, rendering: str = "coordinates", symbols: Mapping[str, str] | None = None) -> None:
        if rendering not in RENDERINGS:
            raise unknown("rendering of sokoban", rendering, RENDERINGS)
        self.rendering = rendering
        self.renamed = _checked(symbols)
        self.symbols = {**SYMBOLS, **self.renamed}
        self.words = {**WORDS, **{key: word for key, word in self.renamed.items() if key in WORDS}}
        self._boxes = -1
        self._rest = ""

    def set_room(self, room: Room) -> None:
        """Turn to `room`."""
        self._room = room
        self._places = places(room.rows, room.columns)
        self._you = _openings(room.rows, room.columns, self.words["player"])
        self._boxes = -1
        inner = room.walls & ~border(room.rows, room.columns)
        walls = f"{_plural(self.words['wall'])} {self._list(inner)}. " if inner else ""
        self._fixed = f"{walls}{self._named('target', room.targets)}. "

    def legend(self) -> str:
        """Return what the signs mean, as far as an observation needs it; "" when it needs nothing."""
        if self.rendering != "coordinates":
            shown = self.symbols
        else:
            shown = {key: word for key, word in self.renamed.items() if key in WORDS}
        return ", ".join(f"{sign} {_about(key)}" for key, sign in shown.items())

    def text(self, state: int) -> str:
        """Return the observation of `state`."""
        if self.rendering == "coordinates":
            return self.coordinates(state)
        if self.rendering == "grid":
            return self.grid(state)
        return f"{self.coordinates(state)}\n{self.grid(state)}"

    def coordinates(self, state: int) -> str:
        boxes = state >> PLAYER_BITS
        if boxes != self._boxes:  # most steps only walk
            self._boxes = boxes
            self._rest = f"{self._fixed}{self._named('box', boxes)}. "
        return self._rest + self._you[state & PLAYER]

    def grid(self, state: int) -> str:
        return _grid(self._room, state, self.symbols)

    def picture(self, state: int) -> str:
        """Return the room drawn for a person, two characters a cell, and what they mean."""
        legend = "  ".join(f"{PICTURE[key]} {_about(key)}" for key in LEGEND)
        return f"{_grid(self._room, state, PICTURE, '')}\n{legend}"

    def _named(self, key: str, mask: int) -> str:
        word = self.words[key]
        return f"{word if mask & (mask - 1) == 0 else _plural(word)} {self._list(mask)}"

    def _list(self, mask: int) -> str:
        return " ".join([self._places[cell] for cell in cells(mask)])


@cache
def places(rows: int, columns: int) -> tuple[str, ...]:
    """Return every cell as `row,column`, counted from 0."""
    return tuple(f"{row},{column}" for row in range(rows) for column in range(columns))


@cache
def _openings(rows: int, columns: int, you: str) -> tuple[str, ...]:
    return tuple(f"{you} {place}." for place in places(rows, columns))


def _grid(room: Room, state: int, symbols: Mapping[str, str], between: str | None = None) -> str:
    if between is None:
        between = "" if all(len(sign) == 1 for sign in symbols.values()) else " "
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
        lines.append(between.join(line))
    return "\n".join(lines)


def _plural(word: str) -> str:
    return word + ("es" if word.endswith(("x", "s", "ch", "sh")) else "s")


def _about(key: str) -> str:
    return "you" + key[6:].replace("_", " ") if key.startswith("player") else key.replace("_", " ")


def _checked(symbols: Mapping[str, str] | None) -> dict[str, str]:
    renamed = dict(symbols or {})
    for key, sign in renamed.items():
        if key not in SYMBOLS:
            raise unknown("symbol of sokoban", key, SYMBOLS)
        if not isinstance(sign, str) or not 1 <= len(sign) <= 20 or sign != sign.strip() or not sign.isprintable():
            raise UsageError(f"the symbol for {key} must be 1 to 20 printable characters, not {str(sign)[:40]!r}")
    signs = list({**SYMBOLS, **renamed}.values())
    for sign in signs:
        if signs.count(sign) > 1:
            raise UsageError(f"two symbols of sokoban are both {sign!r}: give each its own")
    return renamed

"""Rooms that can be solved, in a known number of moves, and that belong to one split.

Walls and targets are drawn first. They alone decide the split, by a hash that is the same for a room and its mirror
images and rotations: no test room is ever seen in training, not even turned around, at whatever level. Then a search
backwards from the solved states (`solve.Distances`) gives the states whose optimal plan has the drawn length, and one
of them is the start. In large rooms the search stops at `solve.TABLE_LIMIT` states; only complete layers are used, so
the plan length is exact there too.
"""

from __future__ import annotations

import random
from bisect import bisect
from functools import cache
from itertools import accumulate

from gentax.core.errors import UsageError
from gentax.core.task import stable_seed
from gentax.domains.sokoban.board import Room, border, cells, reach
from gentax.domains.sokoban.levels import Spec
from gentax.domains.sokoban.solve import TABLE_LIMIT, Distances

EFFORT = 2_000_000  # states searched before a level is called impossible: a second or two
ROOM_EFFORT = 50  # what drawing a room costs, in states searched
PATIENCE = 30  # rooms tried for one plan length before another is drawn
SPLITS = ("train", "test")


def generate(spec: Spec, split: str, seed: int) -> tuple[Room, Distances]:
    """Return the room that `seed` stands for and its distances. Plan lengths are drawn evenly from the level's range.

    Raises:
        UsageError: no room of this size seems to have a plan of such a length.
    """
    rng = random.Random(seed)
    effort = tries = 0
    length = spec.shortest + int(rng.random() * (spec.longest - spec.shortest + 1))
    while effort < EFFORT:
        walls, floor, targets = _layout(spec, split, rng)
        distances = Distances(spec.columns, walls, floor, targets)
        while distances.depth < length and len(distances.known) < TABLE_LIMIT and distances.grow():
            pass
        if distances.depth == length and distances.layer:
            start = distances.layer[int(rng.random() * len(distances.layer))]
            return Room(spec.rows, spec.columns, walls, targets, start), distances
        effort += len(distances.known) + ROOM_EFFORT
        tries += 1
        if tries % PATIENCE == 0:
            length = spec.shortest + int(rng.random() * (spec.longest - spec.shortest + 1))
    raise UsageError(
        f"found no sokoban room of {spec.about} among {tries} rooms searched: ask for shorter plans or a larger room"
    )


def split_of(rows: int, columns: int, walls: int, targets: int) -> str:
    """Return the split that a room with these walls and targets belongs to."""
    return _split(rows, columns, cells(walls & ~border(rows, columns)), cells(targets))


def _split(rows: int, columns: int, walls: list[int], targets: list[int]) -> str:
    """The same, from the inner wall cells and the target cells in any order."""
    canonical = min(
        (sum([turn[cell] for cell in walls]), sum([turn[cell] for cell in targets])) for turn in _turns(rows, columns)
    )
    return SPLITS[stable_seed("sokoban room", rows, columns, *canonical) & 1]


def _layout(spec: Spec, split: str, rng: random.Random) -> tuple[int, int, int]:
    """Draw walls, floor and targets of a room of `split` whose floor is all in one piece."""
    rows, columns, draw = spec.rows, spec.columns, rng.random
    inside = _inside(rows, columns)
    chances = _chances(len(inside) // 4)
    while True:
        count = bisect(chances, draw() * chances[-1])
        places = list(inside)
        for i in range(count + spec.boxes):  # the beginning of a Fisher-Yates shuffle
            j = i + int(draw() * (len(places) - i))
            places[i], places[j] = places[j], places[i]
        inner, goals = places[:count], places[count : count + spec.boxes]
        if _split(rows, columns, inner, goals) != split:
            continue
        walls = border(rows, columns) + sum([1 << cell for cell in inner])
        floor = ((1 << rows * columns) - 1) ^ walls
        if reach(1 << goals[0], floor, columns) == floor:
            return walls, floor, sum([1 << cell for cell in goals])


@cache
def _chances(most: int) -> tuple[int, ...]:
    """Return the cumulative weights of 0 to `most` inner walls. More are likelier: rooms with few walls are few, and
    different tasks ought to differ."""
    return tuple(accumulate((count + 1) ** 2 for count in range(most + 1)))


@cache
def _inside(rows: int, columns: int) -> tuple[int, ...]:
    return tuple(row * columns + column for row in range(1, rows - 1) for column in range(1, columns - 1))


@cache
def _turns(rows: int, columns: int) -> tuple[tuple[int, ...], ...]:
    """Return, for each rotation and reflection of the grid onto itself, the bit that each cell goes to."""
    turns = set()
    for flip_rows in (False, True):
        for flip_columns in (False, True):
            for transpose in (False, True) if rows == columns else (False,):
                turn = []
                for cell in range(rows * columns):
                    row, column = divmod(cell, columns)
                    row = rows - 1 - row if flip_rows else row
                    column = columns - 1 - column if flip_columns else column
                    turn.append(1 << (column * columns + row if transpose else row * columns + column))
                turns.add(tuple(turn))
    return tuple(sorted(turns))

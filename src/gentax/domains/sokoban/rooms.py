"""Rooms that can be solved, in a known number of moves, and that belong to one split.

Walls and targets alone decide the split, by a hash that is the same for a room and its mirror images and rotations:
no room of one split is ever in another, not even turned around, at whatever level. A room of a small level is one of
all there are (`Rooms`); of a larger level it is drawn (`sample_room`). A search backwards from the solved states
(`board.DistanceTable`) gives the states whose optimal plan has a wanted length, and one of them is the start. In large
rooms the search stops at `solver.TABLE_LIMIT` states; only complete layers are used, so the plan length is exact there
too. Validation and test tasks repeat no room while there are others.
"""

from __future__ import annotations

import hashlib
import random
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, combinations, count
from math import comb
from pathlib import Path
from typing import NamedTuple

from gentax.core.env import SPLITS, Task, content_hash, split_of, stable_seed
from gentax.core.errors import UsageError
from gentax.domains.sokoban import LevelSpec
from gentax.domains.sokoban.board import (
    PLAYER,
    PLAYER_BITS,
    TABLE_LIMIT,
    DistanceTable,
    Room,
    border,
    cells,
    everything,
    reach,
    state_of,
)

TRAIN_TASKS = 1_000_000  # every one is made when it is played
DRAWN_TASKS = 10_000  # validation or test tasks of a level whose rooms are drawn
FEW_LAYOUTS = 50_000  # levels with no more are listed whole, in a second; rooms of the others are drawn
MANY_LAYOUTS = 10**10  # with more, thousands of drawn rooms repeat one in fewer than one case in a hundred
EFFORT = 2_000_000  # states searched before a level is called impossible: a second or two
ROOM_EFFORT = 50  # what drawing a room costs, in states searched
PATIENCE = 30  # rooms tried for one plan length before another is drawn


class Start(NamedTuple):
    """A room before it is played."""

    room: Room
    distances: DistanceTable
    content: str  # hash of walls and targets, alike for all eight symmetric images


def tasks_of(spec: LevelSpec, split: str) -> int:
    """Return how many tasks a split of a level has."""
    if split == "train":
        return TRAIN_TASKS
    return len(_AllRooms(spec).starts[split]) if layouts(spec) <= FEW_LAYOUTS else DRAWN_TASKS


def start_of(spec: LevelSpec, task: Task) -> Start:
    """Return the room that a task stands for.

    Raises:
        UsageError: no room of this size seems to have a plan of such a length.
    """
    ways = layouts(spec)
    if ways <= FEW_LAYOUTS:
        return _AllRooms(spec).start(task)
    if task.split == "train" or ways > MANY_LAYOUTS:
        return sample_room(spec, task.split, task.seed)
    return sample_room(spec, task.split, _DistinctRooms(spec, task.split).seed(task))


@cache
def layouts(spec: LevelSpec) -> int:
    """Return how many ways there are to place the walls and targets of a level."""
    inside = len(_inside(spec.rows, spec.columns))
    return sum(comb(inside, walls) * comb(inside - walls, spec.boxes) for walls in range(inside // 4 + 1))


def content_of(rows: int, columns: int, walls: int, targets: int) -> str:
    """Return the hash of a room's walls and targets: of the floor's shape, wherever it stands and however it lies."""
    floor = [divmod(cell, columns) for cell in cells(everything(rows, columns) ^ walls)]
    goals = [divmod(cell, columns) for cell in cells(targets)]
    images = []
    for turn in range(8):
        turned = [[_turned(turn, *place) for place in places] for places in (floor, goals)]
        top, left = _corner(turned[0])
        images.append(tuple(tuple(sorted((row - top, column - left) for row, column in places)) for places in turned))
    return content_hash("sokoban room", min(images))


def sample_room(spec: LevelSpec, split: str, seed: int) -> Start:
    """Draw a room of a split. Plan lengths are drawn evenly from the level's range.

    Raises:
        UsageError: no room of this size seems to have a plan of such a length.
    """
    rng = random.Random(seed)
    effort = tries = 0
    length = spec.shortest + int(rng.random() * (spec.longest - spec.shortest + 1))
    while effort < EFFORT:
        walls, targets, content = _draw_layout(spec, split, rng)
        distances = DistanceTable(spec.rows, spec.columns, walls, targets)
        while distances.depth < length and len(distances.known) < TABLE_LIMIT and distances.grow():
            pass
        if distances.depth == length and distances.layer:
            state = distances.layer[int(rng.random() * len(distances.layer))]
            return Start(Room(spec.rows, spec.columns, walls, targets, state), distances, content)
        effort += len(distances.known) + ROOM_EFFORT
        tries += 1
        if tries % PATIENCE == 0:
            length = spec.shortest + int(rng.random() * (spec.longest - spec.shortest + 1))
    raise _no_room(spec, tries)


@cache
class _AllRooms:
    """Every room of a small level, and the states in it that a task may start from.

    Validation and test tasks take the rooms in turn, each in a state that no earlier task started from. Train tasks
    draw room and state, as many as are wanted.
    """

    def __init__(self, spec: LevelSpec) -> None:
        self.spec, self._turns = spec, _turns(spec.rows, spec.columns)
        self._rooms: dict[str, list[tuple[int, int, str, list[list[int]]]]] = {split: [] for split in SPLITS}
        for content, (walls, targets) in sorted(_every_layout(spec.rows, spec.columns, spec.boxes).items()):
            distances, states = DistanceTable(spec.rows, spec.columns, walls, targets), []
            while distances.depth < spec.longest and distances.grow():
                if distances.depth >= spec.shortest:
                    states.append(distances.layer)
            if states:
                self._rooms[split_of(content)].append((walls, targets, content, states))
        if not all(self._rooms.values()):
            raise _no_room(spec, sum(map(len, self._rooms.values())))
        self.starts = {split: self._in_turn(split) for split in SPLITS if split != "train"}

    def start(self, task: Task) -> Start:
        rng = random.Random(task.seed)
        if task.split == "train":
            walls, targets, content, states = rng.choice(self._rooms["train"])
            state = rng.choice(rng.choice(states))
        else:
            number, state = self.starts[task.split][task.index]
            walls, targets, content, _ = self._rooms[task.split][number]
        turn = rng.choice(self._turns)
        walls, targets = _moved(turn, walls), _moved(turn, targets)
        room = Room(self.spec.rows, self.spec.columns, walls, targets, _moved_state(turn, state))
        return Start(room, DistanceTable(room.rows, room.columns, walls, targets), content)

    def _in_turn(self, split: str) -> list[tuple[int, int]]:
        """Return (number of the room, state) of each task: all rooms once, then all that have another state, and on."""
        waiting = []
        for number, (walls, targets, content, states) in enumerate(self._rooms[split]):
            rng = random.Random(stable_seed("sokoban starts", content))
            layers = [rng.sample(layer, len(layer)) for layer in rng.sample(states, len(states))]
            # In a room that is its own mirror image two states may be the same task.
            own = [turn for turn in self._turns if (_moved(turn, walls), _moved(turn, targets)) == (walls, targets)]
            layers = [[s for s in layer if s == min(_moved_state(turn, s) for turn in own)] for layer in layers]
            # Plan lengths in turn, as a train task draws them evenly.
            longest = max(map(len, layers))
            waiting.append((number, [layer[k] for k in range(longest) for layer in layers if k < len(layer)]))
        most = max(len(states) for _, states in waiting)
        return [(number, states[k]) for k in range(most) for number, states in waiting if k < len(states)]


@cache
class _DistinctRooms:
    """Seeds of a split's tasks, in order, whose drawn rooms are all different. Grows as tasks are asked for."""

    def __init__(self, spec: LevelSpec, split: str) -> None:
        self.spec, self.split = spec, split
        self._seeds: list[int] = []
        self._taken: set[str] = set()

    def seed(self, task: Task) -> int:
        while len(self._seeds) <= task.index:
            id = Task(task.domain, task.level, task.split, len(self._seeds)).id
            for attempt in count():
                seed = stable_seed(id, attempt)
                content = sample_room(self.spec, self.split, seed).content
                if content not in self._taken:
                    break
            self._taken.add(content)
            self._seeds.append(seed)
        return self._seeds[task.index]


def _no_room(spec: LevelSpec, tries: int) -> UsageError:
    return UsageError(
        f"found no sokoban room of {spec.about} among {tries} rooms searched: ask for shorter plans or a larger room"
    )


@cache
def _every_layout(rows: int, columns: int, boxes: int) -> dict[str, tuple[int, int]]:
    """Return content -> (walls, targets) of every room whose floor is all in one piece, one image of each."""
    inside, turns = _inside(rows, columns), _turns(rows, columns)
    found = {}
    for number in range(len(inside) // 4 + 1):
        for inner in combinations(inside, number):
            for goals in combinations([cell for cell in inside if cell not in inner], boxes):
                image = _mask(inner), _mask(goals)
                if any((_moved(turn, image[0]), _moved(turn, image[1])) < image for turn in turns):
                    continue  # another image of it stands for the room
                walls, targets = border(rows, columns) | image[0], image[1]
                if _is_connected(rows, columns, walls, goals[0]):
                    found[content_of(rows, columns, walls, targets)] = walls, targets
    return found


def _draw_layout(spec: LevelSpec, split: str, rng: random.Random) -> tuple[int, int, str]:
    """Draw walls and targets of a room of `split` whose floor is all in one piece; return them and their content."""
    rows, columns, draw = spec.rows, spec.columns, rng.random
    inside = _inside(rows, columns)
    chances = _chances(len(inside) // 4)
    while True:
        number = bisect(chances, draw() * chances[-1])
        places = list(inside)
        for i in range(number + spec.boxes):  # the beginning of a Fisher-Yates shuffle
            j = i + int(draw() * (len(places) - i))
            places[i], places[j] = places[j], places[i]
        inner, goals = places[:number], places[number : number + spec.boxes]
        walls, targets = border(rows, columns) + _mask(inner), _mask(goals)
        if _is_connected(rows, columns, walls, goals[0]):
            content = content_of(rows, columns, walls, targets)
            if split_of(content) == split:
                return walls, targets, content


def _is_connected(rows: int, columns: int, walls: int, cell: int) -> bool:
    """Return whether all of the floor can be walked to from `cell`."""
    floor = everything(rows, columns) ^ walls
    return reach(1 << cell, floor, columns) == floor


def _mask(places: Sequence[int]) -> int:
    return sum([1 << cell for cell in places])


@cache
def _chances(most: int) -> tuple[int, ...]:
    """Return the cumulative weights of 0 to `most` inner walls. More are likelier: rooms with few walls are few, and
    different tasks ought to differ."""
    return tuple(accumulate((walls + 1) ** 2 for walls in range(most + 1)))


@cache
def _inside(rows: int, columns: int) -> tuple[int, ...]:
    return tuple(row * columns + column for row in range(1, rows - 1) for column in range(1, columns - 1))


@cache
def _turns(rows: int, columns: int) -> tuple[tuple[int, ...], ...]:
    """Return, for each rotation and reflection of the grid onto itself, the bit that each cell goes to."""
    turns = set()
    for number in range(8):
        if number & 4 and rows != columns:
            continue
        turned = [_turned(number, *divmod(cell, columns)) for cell in range(rows * columns)]
        top, left = _corner(turned)
        turns.add(tuple(1 << (row - top) * columns + column - left for row, column in turned))
    return tuple(sorted(turns))


def _turned(number: int, row: int, column: int) -> tuple[int, int]:
    """Return where one of the eight symmetries takes a place, about the origin."""
    if number & 1:
        row = -row
    if number & 2:
        column = -column
    return (column, row) if number & 4 else (row, column)


def _corner(places: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Return the first row and the first column of places."""
    return min(row for row, _ in places), min(column for _, column in places)


def _moved(turn: tuple[int, ...], mask: int) -> int:
    return sum([turn[cell] for cell in cells(mask)])


def _moved_state(turn: tuple[int, ...], state: int) -> int:
    return state_of(turn[state & PLAYER].bit_length() - 1, _moved(turn, state >> PLAYER_BITS))


# Rooms from a text file in XSB, the format in which Sokoban collections are published.
#
# `#` wall, space `-` `_` floor, `.` target, `$` box, `*` box on target, `@` player, `+` player on target. Rooms are
# separated by blank lines; a line that begins with `;` is a comment, and a line of letters beside a room its title.

SIGNS = "# -_.$*@+"
SIDE = 64  # a cell number fits into `board.PLAYER_BITS`
BYTES = 4 << 20  # no collection of rooms is larger


@dataclass(frozen=True, slots=True)
class Collection:
    """The rooms of a file, by split."""

    path: Path
    level: str
    rooms: Mapping[str, tuple[Room, ...]]

    @property
    def horizon(self) -> int:
        """A number of steps that is ample for people's rooms: (boxes + 1) * floor cells, of the largest."""
        return max(
            (room.targets.bit_count() + 1) * (room.rows * room.columns - room.walls.bit_count())
            for rooms in self.rooms.values()
            for room in rooms
        )

    def start(self, task: Task) -> Start:
        """Return the room that a task stands for."""
        room = self.rooms[task.split][task.index]
        content = content_of(room.rows, room.columns, room.walls, room.targets)
        return Start(room, DistanceTable(room.rows, room.columns, room.walls, room.targets), content)


def read_xsb(path: str | Path) -> Collection:
    """Read every room of the file.

    Raises:
        UsageError: the file or a room in it cannot be used: which file, which line, why, and what to do.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(BYTES + 1)
    except (OSError, ValueError) as error:  # a ValueError is a path that no file can have
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: {why}; give the path of an XSB text file") from error
    if len(data) > BYTES:
        raise UsageError(f"{path}: larger than {BYTES >> 20} MiB, so hardly a file of Sokoban rooms; name another")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from error
    rooms = [_room(path, first, lines) for first, lines in _blocks(path, text)]
    if not rooms:
        raise UsageError(f"{path}: no room in it; a room is drawn with {SIGNS} and has walls around it")
    # Of the text, not of the bytes: the same rooms saved with other line ends are the same level.
    digest = hashlib.blake2b("\n".join(text.splitlines()).encode(), digest_size=4).hexdigest()
    split = {room: split_of(content_of(room.rows, room.columns, room.walls, room.targets)) for room in rooms}
    return Collection(path, f"xsb-{digest}", {one: tuple(r for r in rooms if split[r] == one) for one in SPLITS})


def _blocks(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """Return each room's lines and the number of its first."""
    blocks: list[tuple[int, list[str]]] = []
    inside = False
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.rstrip()
        if "#" in line and not line.startswith(";") and not _is_title(line):
            for column, sign in enumerate(line, 1):
                if sign not in SIGNS:
                    raise UsageError(
                        f"{path}, line {number}, column {column}: {sign!r} is no sign of a room; "
                        f"use {SIGNS} or put ; before a comment"
                    )
            if not inside:
                blocks.append((number, []))
            blocks[-1][1].append(line)
            inside = True
        elif inside and line and not line.startswith(";") and set(line) <= set(SIGNS) and not set(line) <= set(" -_"):
            raise UsageError(f"{path}, line {number}: a row without any wall; close the room with # on both sides")
        else:
            inside = False
    return blocks


def _is_title(line: str) -> bool:
    """Whether a line with a # in it is words all the same, such as `Room #3`: less than half of it are signs."""
    letters = line.replace(" ", "")
    return sum(sign in SIGNS for sign in letters) * 2 < len(letters)


def _room(path: Path, first: int, lines: list[str]) -> Room:
    rows, columns = len(lines), max(map(len, lines))
    if max(rows, columns) > SIDE:
        raise UsageError(f"{path}, line {first}: a room of {rows} by {columns} cells; at most {SIDE} by {SIDE} fit")
    found: dict[str, list[int]] = {sign: [] for sign in SIGNS}
    for row, line in enumerate(lines):
        for column, sign in enumerate(line.ljust(columns)):
            found[sign].append(row * columns + column)

    players = found["@"] + found["+"]
    if len(players) != 1:
        at = first if not players else first + sorted(players)[1] // columns
        count = "no player" if not players else f"{len(players)} players"
        raise UsageError(f"{path}, line {at}: {count} in this room; it needs exactly one @ (or + on a target)")
    boxes, targets = _mask(found["$"] + found["*"]), _mask(found["."] + found["*"] + found["+"])
    if boxes.bit_count() != targets.bit_count() or not boxes:
        raise UsageError(
            f"{path}, line {first}: {boxes.bit_count()} boxes ($ or *) and {targets.bit_count()} targets (. * or +) "
            f"in this room; it needs as many of one as of the other, and at least one"
        )
    floor = reach(1 << players[0], everything(rows, columns) & ~_mask(found["#"]), columns)
    for cell in cells(floor & border(rows, columns)):
        row, column = divmod(cell, columns)
        raise UsageError(f"{path}, line {first + row}, column {column + 1}: the room is open here; close it with #")
    # What the player can never come near is wall to him, boxes that already stand on their targets included.
    for cell in cells((boxes ^ targets) & ~floor):
        row, column = divmod(cell, columns)
        raise UsageError(
            f"{path}, line {first + row}, column {column + 1}: the player can never reach this; "
            f"open the walls around it or take it out"
        )
    boxes, targets = boxes & floor, targets & floor
    if boxes == targets:
        raise UsageError(f"{path}, line {first}: this room is solved already; move a box off its target")
    return Room(rows, columns, everything(rows, columns) ^ floor, targets, state_of(players[0], boxes))

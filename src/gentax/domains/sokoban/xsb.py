"""Rooms from a text file in XSB, the format in which Sokoban collections are published.

`#` wall, space `-` `_` floor, `.` target, `$` box, `*` box on target, `@` player, `+` player on target. Rooms are
separated by blank lines; a line that begins with `;` is a comment, and a line of letters beside a room its title.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gentax.core.errors import UsageError
from gentax.core.task import SPLITS, split_of
from gentax.domains.sokoban.board import Room, cells, reach, state_of
from gentax.domains.sokoban.generate import content_of

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

    @property
    def told(self) -> str:
        """How the rooms are dealt out, in words."""
        counts = [f"{len(rooms)} {split}" for split, rooms in self.rooms.items() if rooms]
        many = sum(map(len, self.rooms.values())) > 1
        return f"room{'s' * many} {'are' if many else 'is'} {', '.join(counts)}"


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
        line = first if not players else first + sorted(players)[1] // columns
        count = "no player" if not players else f"{len(players)} players"
        raise UsageError(f"{path}, line {line}: {count} in this room; it needs exactly one @ (or + on a target)")
    boxes, targets = _mask(found["$"] + found["*"]), _mask(found["."] + found["*"] + found["+"])
    if boxes.bit_count() != targets.bit_count() or not boxes:
        raise UsageError(
            f"{path}, line {first}: {boxes.bit_count()} boxes ($ or *) and {targets.bit_count()} targets (. * or +) "
            f"in this room; it needs as many of one as of the other, and at least one"
        )
    everything = (1 << rows * columns) - 1
    floor = reach(1 << players[0], everything & ~_mask(found["#"]), columns)
    for cell in cells(floor):
        row, column = divmod(cell, columns)
        if row in (0, rows - 1) or column in (0, columns - 1):
            raise UsageError(f"{path}, line {first + row}, column {column + 1}: the room is open here; close it with #")
    # What the player can never come near is wall to him, boxes that already stand on their targets included.
    stuck = (boxes ^ targets) & ~floor
    if stuck:
        row, column = divmod(cells(stuck)[0], columns)
        raise UsageError(
            f"{path}, line {first + row}, column {column + 1}: the player can never reach this; "
            f"open the walls around it or take it out"
        )
    boxes, targets = boxes & floor, targets & floor
    if boxes == targets:
        raise UsageError(f"{path}, line {first}: this room is solved already; move a box off its target")
    return Room(rows, columns, everything ^ floor, targets, state_of(players[0], boxes))


def _mask(places: list[int]) -> int:
    return sum(1 << cell for cell in places)

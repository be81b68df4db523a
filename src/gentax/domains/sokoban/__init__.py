"""Sokoban: push every box onto a target, in small generated rooms with known optimal plans or in rooms from a file.

The domain's record and its levels: the size of a room, its boxes and the length of its optimal plan.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gentax.core.env import Domain, Level
from gentax.core.errors import UsageError, unknown

FORM = "ROWSxCOLUMNS-BOXES-MIN-MAX"  # for example 7x7-2-8-20
SIDES = (5, 16)  # below 5 a room has no three cells in a line, so that no box can be pushed
BOXES = (1, 6)
LONGEST = 200
_FORM = re.compile(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})-([1-9][0-9]{0,3})-([1-9][0-9]{0,3})-([1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class LevelSpec:
    """What every room of a level has in common. Sizes include the outer wall; plans are counted in moves."""

    rows: int
    columns: int
    boxes: int
    shortest: int
    longest: int
    most: int | None = None  # steps, where the rule below is not wanted

    @property
    def horizon(self) -> int:
        """Half as many steps again as the longest plan: 15 for plans of up to 10, as in the paper."""
        return -(-self.longest * 3 // 2) if self.most is None else self.most

    @property
    def about(self) -> str:
        boxes = "1 box" if self.boxes == 1 else f"{self.boxes} boxes"
        plans = f"optimal plans of {self.shortest}-{self.longest} moves"
        return f"{self.rows} by {self.columns} with its walls, {boxes}, {plans}"


NAMED = {
    "6x6": LevelSpec(6, 6, 1, 3, 10),
    "6x6-mid": LevelSpec(6, 6, 1, 6, 12, most=15),
    # The default: what the base model solves about a third of.
    "6x6-far": LevelSpec(6, 6, 1, 9, 14, most=20),
    "6x6-long": LevelSpec(6, 6, 1, 11, 16, most=20),
    "7x7-2": LevelSpec(7, 7, 2, 8, 20),
    "8x8-2": LevelSpec(8, 8, 2, 10, 26),
    "10x10-3": LevelSpec(10, 10, 3, 12, 24),
}
DEFAULT = "6x6-far"
LEVELS = {name: Level(horizon=spec.horizon, about=spec.about) for name, spec in NAMED.items()}


def parse_level(level: str) -> LevelSpec:
    """Return what `level` asks for: a named level, or one spelled `ROWSxCOLUMNS-BOXES-MIN-MAX`.

    Raises:
        UsageError: a name that is neither, or numbers that no room can have.
    """
    if level in NAMED:
        return NAMED[level]
    form = _FORM.fullmatch(level)
    if form is None:
        raise unknown("level of sokoban", level, [*NAMED, FORM])
    spec = LevelSpec(*map(int, form.groups()))
    cells = (spec.rows - 2) * (spec.columns - 2)
    for what, value, (low, high) in (
        ("rows", spec.rows, SIDES),
        ("columns", spec.columns, SIDES),
        ("boxes", spec.boxes, (BOXES[0], min(BOXES[1], cells // 4))),
        ("shortest plan", spec.shortest, (1, LONGEST)),
        ("longest plan", spec.longest, (spec.shortest, LONGEST)),
    ):
        if not low <= value <= high:
            raise UsageError(f"level {level!r} of sokoban ({FORM}): {what} must be {low} to {high}, not {value}")
    return spec


DOMAIN = Domain(
    name="sokoban",
    entry="gentax.domains.sokoban.env:Sokoban",
    about="Push every box onto a target in a small room; mistakes cannot be undone.",
    rules=(
        "Push every box onto a target. Positions are row,column; rows grow downward. Everything on the border is wall. "
        "Actions: up, down, left, right. Walking into a box pushes it; a box can never be pulled."
    ),
    levels=LEVELS,
    default_level=DEFAULT,
    licence="Apache-2.0",
    origin="gentax's own generator; the default size and the list of coordinates follow arXiv 2601.18217",
    open_levels=True,
)

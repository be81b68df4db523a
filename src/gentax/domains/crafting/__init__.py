"""Crafting: get materials and craft what a list of made-up recipes leads to, in the action grammar of TextCraft.

The domain's record and its levels: how deep the plan is and how much irrelevant text there is to read. The two dials
are independent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from gentax.core.env import Domain, Level
from gentax.core.errors import UsageError, unknown

FORM = "depthD-readN or depthD-readNxW"  # for example depth3-read10x12
DEPTH = (1, 6)
THINGS = (0, 100)
WORDS = (1, 100)
_FORM = re.compile(r"depth([0-9]{1,4})-read([0-9]{1,4})(?:x([0-9]{1,4}))?")


@dataclass(frozen=True, slots=True)
class LevelSpec:
    """What every task of a level has in common."""

    depth: int  # recipes between the goal and what can be got, the goal's own included
    things: int = 0  # things that lie about, that no recipe needs
    words: int = 8  # words that describe each of them
    mixed: bool = False  # every other task is a recipe less deep

    def of(self, index: int) -> LevelSpec:
        """Return what the task of this index has."""
        return replace(self, depth=self.depth - index % 2, mixed=False) if self.mixed else self

    @property
    def shortest(self) -> int:
        """The fewest steps a plan may have."""
        return 2 * (self.depth - self.mixed)

    @property
    def longest(self) -> int:
        """The most steps a plan may have."""
        return 4 * self.depth

    @property
    def horizon(self) -> int:
        """Half as many steps again as the longest plan; where depths take turns no more than that plan, since random
        play reaches the goal of a single recipe in a few steps."""
        return self.longest if self.mixed else 6 * self.depth

    @property
    def about(self) -> str:
        read = f"{self.things} things of {self.words} words" if self.things else "nothing"
        recipes = "1 recipe" if self.depth == 1 else f"{self.depth} recipes"
        recipes = f"{self.depth - 1} or {recipes}" if self.mixed else recipes
        return f"plans of {self.shortest}-{self.longest} steps, {recipes} deep; {read} to read beside"


NAMED = {
    "shallow": LevelSpec(2, mixed=True),
    "depth1-read0": LevelSpec(1),
    "depth2-read0": LevelSpec(2),
    "depth3-read0": LevelSpec(3),
    "depth4-read0": LevelSpec(4),
    "depth2-read4": LevelSpec(2, 4),
    "depth2-read16": LevelSpec(2, 16),
    "depth4-read16": LevelSpec(4, 16),
}
DEFAULT = "shallow"
LEVELS = {name: Level(horizon=spec.horizon, about=spec.about) for name, spec in NAMED.items()}


def parse_level(level: str) -> LevelSpec:
    """Return what `level` asks for: a named level, or one spelled `depthD-readN` or `depthD-readNxW`.

    Raises:
        UsageError: a name that is neither, or numbers beyond the dials.
    """
    if level in NAMED:
        return NAMED[level]
    form = _FORM.fullmatch(level)
    if form is None:
        raise unknown("level of crafting", level, [*NAMED, FORM])
    numbers = [int(number) for number in form.groups() if number is not None]
    spec = LevelSpec(*numbers)  # type: ignore[arg-type]  # the form has as many numbers as the first fields take
    for what, value, (low, high) in (
        ("the depth", spec.depth, DEPTH),
        ("the things to read", spec.things, THINGS),
        ("their words", spec.words, WORDS),
    ):
        if not low <= value <= high:
            raise UsageError(f"level {level!r} of crafting ({FORM}): {what} must be {low} to {high}, not {value}")
    return spec


DOMAIN = Domain(
    name="crafting",
    entry="gentax.domains.crafting.env:Crafting",
    about="Get materials and craft them, step by step, into the thing asked for; every task has recipes of its own.",
    rules=(
        "Craft the goal with the recipes. What no recipe makes you can get, 1 to 6 at a time. "
        "Actions: get NUMBER ITEM; craft, written exactly as in the recipe; inventory."
    ),
    levels=LEVELS,
    default_level=DEFAULT,
    licence="Apache-2.0",
    origin="gentax's own recipes; the action grammar follows TextCraft (ADaPT, arXiv 2311.05772)",
    open_levels=True,
)

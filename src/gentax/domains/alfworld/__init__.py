"""ALFWorld: tidy a home by text commands, played in the packages' own engine on generated or official games.

The domain's record and its levels: which kinds of task, how many receptacles, how far things are hidden.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gentax.core.env import Domain, Level
from gentax.core.errors import UsageError, unknown
from gentax.core.imports import install_command

KINDS = ("place", "light", "clean", "heat", "cool", "two")  # the six task types of ALFWorld
OFFICIAL = "official"  # the level that needs data
TASKS = 1_000_000  # of each split of a generated level; every one is made when it is played
FORM = "KINDS-N or KINDS-N@PLAN"  # for example place+heat-8, or light-6@FloorPlan301
PLACES = (3, 60)
PLANS = tuple(first + number for first in (1, 201, 301, 401) for number in range(30))
OFFICIAL_HORIZON = 50  # as published
_FORM = re.compile(r"([a-z+]{1,40})-([0-9]{1,4})(?:@(\w{1,40}))?")


@dataclass(frozen=True, slots=True)
class LevelSpec:
    """What every task of a level has in common."""

    kinds: tuple[str, ...]  # tasks take turns among them
    places: int  # receptacles in a home, at most
    things: int  # objects in a home, at least as many as the task needs
    looks: int  # what is sought is in one of the first so many places where one would look
    plan: int | None = None  # the one floor plan that is played

    @property
    def longest(self) -> int:
        """The most steps the expert takes: every place gone to and opened, for each thing sought."""
        return max(_steps(kind, self.looks) for kind in self.kinds)

    @property
    def horizon(self) -> int:
        """Half as many steps again as the expert's longest plan."""
        return self.longest * 3 // 2

    @property
    def about(self) -> str:
        kinds = "all six kinds of task" if self.kinds == KINDS else ", ".join(self.kinds)
        return f"{kinds}: homes of up to {self.places} receptacles and {self.things} things"


def _steps(kind: str, looks: int) -> int:
    search = 2 * looks + 1  # go to and open each, take
    put = 3  # go to the place, open it, put it there
    return {"light": 2 * search, "place": search + put, "two": 2 * (search + put)}.get(kind, search + 2 + put)


NAMED = {
    "small": LevelSpec(("place", "light", "clean"), places=5, things=5, looks=2),
    "flat": LevelSpec(("place", "light", "clean"), places=7, things=8, looks=3),
    **{kind: LevelSpec((kind,), places=8, things=10, looks=4) for kind in KINDS},
    "home": LevelSpec(KINDS, places=12, things=18, looks=6),
    "whole": LevelSpec(KINDS, places=PLACES[1], things=40, looks=12),
}
DEFAULT = "flat"
LEVELS = {
    **{name: Level(spec.horizon, spec.about) for name, spec in NAMED.items()},
    OFFICIAL: Level(OFFICIAL_HORIZON, "the published games, in the folder that the variable ALFWORLD_DATA names"),
}


def parse_level(level: str) -> LevelSpec:
    """Return what `level` asks for: a named level, or one spelled `KINDS-N` or `KINDS-N@PLAN`.

    Raises:
        UsageError: a name that is neither, a kind or floor plan that does not exist, or too many or few receptacles.
    """
    if level in NAMED:
        return NAMED[level]
    form = _FORM.fullmatch(level)
    if form is None:
        raise unknown("level of alfworld", level, [*NAMED, OFFICIAL, FORM])
    kinds = tuple(form[1].split("+"))
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("kind of task of alfworld", kind, KINDS)
    places = int(form[2])
    if not PLACES[0] <= places <= PLACES[1]:
        raise UsageError(f"level {level!r} of alfworld: {PLACES[0]} to {PLACES[1]} receptacles, not {places}")
    return LevelSpec(kinds, places, things=places + places // 3, looks=max(2, places // 2), plan=_plan(form[3]))


def _plan(name: str | None) -> int | None:
    if name is None:
        return None
    numbers = {f"FloorPlan{number}": number for number in PLANS}
    if name not in numbers:
        raise unknown("floor plan of alfworld", name, numbers)
    return numbers[name]


DOMAIN = Domain(
    name="alfworld",
    entry="gentax.domains.alfworld.env:AlfWorld",
    about="Find things in a home, clean, heat or cool them, put them away, look at them in light (ALFWorld).",
    rules=(
        "Do the task in a home. Most things are out of sight: go to a place to see what is on it, open what is closed. "
        "You can carry one thing. Commands: go to X, open X, close X, take Y from X, move Y to X, clean Y with X, "
        "heat Y with X, cool Y with X, use Y, examine X, look, inventory. A sinkbasin cleans, a microwave heats, a "
        "fridge cools, a lamp is used while you hold what you look at. X and Y are names with numbers, such as desk 1."
    ),
    levels=LEVELS,
    default_level=DEFAULT,
    licence=(
        "MIT (alfworld, textworld); they bring jericho (GPL-2) and fast-downward-textworld (GPL-3), which load into "
        "the same process"
    ),
    origin=(
        "the engine, rules, wording and 120 floor plans of the alfworld package 0.4 (arXiv 2010.03768) on gentax's own "
        "generated games; level official: the published games, where a user has them"
    ),
    requires=("alfworld", "textworld", "fast_downward"),
    enable=f"{install_command('gentax[alfworld]')} (has GPL parts, and compiles for minutes: needs gcc, g++ and make)",
    open_levels=True,
)

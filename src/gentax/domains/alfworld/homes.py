"""The floor plans of the package: the receptacles of each, what can be in them, and which tasks they are fit for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from gentax.domains.alfworld.levels import PLANS
from gentax.domains.alfworld.package import floor_plan, tables

OPENABLE = frozenset({"Cabinet", "Drawer", "Fridge", "Microwave", "Safe"})
LAMPS = ("DeskLamp", "FloorLamp")
LAMP_PLACES = ("Desk", "SideTable", "Dresser", "CoffeeTable", "DiningTable", "Shelf")  # where a lamp may stand
STATIONS = {  # kind of task -> what a thing must be capable of, the receptacle that does it
    "clean": ("Cleanable", "SinkBasin"),
    "heat": ("Heatable", "Microwave"),
    "cool": ("Coolable", "Fridge"),
}
_BURNERS = 4  # the one kind that the plans' lists name once and that a home has several of


@dataclass(frozen=True, slots=True)
class Receptacle:
    """Where things are put."""

    id: str  # as the PDDL names it
    kind: str
    location: str  # where one stands to use it; several may share one


@dataclass(frozen=True, slots=True)
class Plan:
    """A floor plan."""

    number: int
    receptacles: tuple[Receptacle, ...]  # in the order in which the engine lists them
    things: tuple[str, ...]  # kinds of movable things, in order

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of receptacle there are, in order."""
        return tuple(sorted({one.kind for one in self.receptacles}))

    @property
    def lamps(self) -> tuple[str, ...]:
        """The kinds of lamp there are."""
        return tuple(one for one in LAMPS if one in _listed(self.number))


@cache
def holds() -> dict[str, frozenset[str]]:
    """Return the kinds of thing that each kind of receptacle can hold."""
    known = tables()
    places = known.RECEPTACLES - set(known.MOVABLE_RECEPTACLES)
    held = {
        kind: frozenset(thing for thing in things if not thing.endswith("Sliced"))
        for kind, things in known.VAL_RECEPTACLE_OBJECTS.items()
        if kind in places
    }
    return {kind: things for kind, things in held.items() if things}


def capable(what: str) -> frozenset[str]:
    """Return the kinds of thing that are, for example, "Heatable"."""
    return frozenset(thing for thing in tables().VAL_ACTION_OBJECTS[what] if not thing.endswith("Sliced"))


@cache
def plan_of(number: int) -> Plan:
    """Return floor plan `number`."""
    where, _ = floor_plan(number)
    things = _listed(number)
    found = []
    for name, (x, z, turn, tilt) in where.items():
        kind = name.rsplit("|", 1)[-1] if name.endswith("Basin") else name.split("|")[0]
        if kind in holds():
            found.append(Receptacle(_spelled(name), kind, f"loc_bar_{x}_bar_{z}_bar_{turn}_bar_{tilt}"))
    there = {one.kind for one in found}
    for kind in sorted(set(holds()) & things - there):  # without a place in the list of those that can be opened
        for number_of in range(1, 1 + (_BURNERS if kind == "StoveBurner" else 1)):
            id = f"{kind}_bar_{number_of}".lower()
            found.append(Receptacle(id, kind, f"loc_bar_{id}"))
    kept = set().union(*(holds()[one.kind] for one in found))
    found = [Receptacle(one.id, one.kind, _spelled(one.location)) for one in found]
    return Plan(number, tuple(sorted(found, key=lambda one: one.id)), tuple(sorted(kept & things)))


def targets(plan: Plan, kind: str) -> dict[str, tuple[str, ...]]:
    """Return what a task of a kind can be about in a floor plan: things, and for each the receptacles it may go to.

    For `light` the receptacles are kinds that it may be found in.
    """
    need = STATIONS.get(kind)
    if (need and need[1] not in plan.kinds) or (kind == "light" and not _lit(plan)):
        return {}
    found = {}
    for thing in plan.things:
        if need and thing not in capable(need[0]):
            continue
        fit = [place for place in plan.kinds if thing in holds()[place]]
        to = tuple(place for place in fit if not (need and place == need[1]))
        if to and (len(fit) > 1 or kind == "light"):  # it has to be somewhere else at first
            found[thing] = to
    return found


@cache
def fit_for(kind: str, testing: bool | None) -> tuple[int, ...]:
    """Return the floor plans that a kind of task can be played in: those for testing, the others, or all (None)."""
    tested = set(tables().TEST_SCENE_NUMBERS)
    return tuple(number for number in PLANS if testing in (None, number in tested) and targets(plan_of(number), kind))


def _lit(plan: Plan) -> bool:
    return bool(plan.lamps) and not set(LAMP_PLACES).isdisjoint(plan.kinds)


@cache
def _listed(number: int) -> frozenset[str]:
    return frozenset(floor_plan(number)[1])


def _spelled(name: str) -> str:
    """Spell a name as the published games do, in the letters that PDDL allows."""
    for sign, word in {"|": "_bar_", "+": "_plus_", "-": "_minus_", ".": "_dot_"}.items():
        name = name.replace(sign, word)
    return name.lower()

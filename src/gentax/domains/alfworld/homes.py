"""The packages' data: rules, wording and floor plans; what each receptacle can hold; and a home as a PDDL problem.

`alfworld` itself is never imported: that would make a folder in the user's home and set ALFWORLD_DATA. Its two tables
are modules that need nothing else of it, and are loaded by their files.
"""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from gentax.domains.alfworld import PLANS


@cache
def root() -> Path:
    """Return the folder of the alfworld package."""
    spec = importlib.util.find_spec("alfworld")
    return Path(spec.submodule_search_locations[0])


@cache
def rules() -> str:
    """Return the rules of the world, in PDDL."""
    return (root() / "data" / "alfred.pddl").read_text(encoding="utf-8")


@cache
def wording() -> str:
    """Return the grammar that the engine's texts are made with."""
    return (root() / "data" / "alfred.twl2").read_text(encoding="utf-8")


@cache
def tables() -> ModuleType:
    """Return the module of what fits where, what can be heated, and which floor plans are for testing."""
    return _module("constants")


@cache
def goals() -> Mapping[str, Mapping[str, Any]]:
    """Return, by task type, the goal in PDDL and the ways to say it."""
    return _module("goal_library").gdict


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"gentax_alfworld_{name}", root() / "gen" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def display_names(ids: Iterable[str]) -> dict[str, str]:
    """Return the name of each thing by its id in the PDDL; of each kind the last in order is number 1."""
    ids = sorted(ids)
    left = Counter(_kind(id) for id in ids)
    names = {}
    for id in ids:
        kind = _kind(id)
        names[id] = f"{kind} {left[kind]}"
        left[kind] -= 1
    return names


def _kind(id: str) -> str:
    kind, bar, _ = id.partition("_bar_")
    return f"{kind}basin" if bar and "basin" in id else kind


# The floor plans of the package: the receptacles of each, what can be in them, and which tasks they are fit for.

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
    kinds: tuple[str, ...]  # of receptacle, in order
    things: tuple[str, ...]  # kinds of movable things, in order
    lamps: tuple[str, ...]  # kinds of lamp


@cache
def holds() -> dict[str, frozenset[str]]:
    """Return the kinds of thing that each kind of receptacle can hold."""
    known = tables()
    places = known.RECEPTACLES - set(known.MOVABLE_RECEPTACLES)
    held = {kind: _whole(things) for kind, things in known.VAL_RECEPTACLE_OBJECTS.items() if kind in places}
    return {kind: things for kind, things in held.items() if things}


def objects_with(what: str) -> frozenset[str]:
    """Return the kinds of thing that are, for example, "Heatable"."""
    return _whole(tables().VAL_ACTION_OBJECTS[what])


def _whole(things: Iterable[str]) -> frozenset[str]:
    return frozenset(thing for thing in things if not thing.endswith("Sliced"))


@cache
def plan_of(number: int) -> Plan:
    """Return floor plan `number`."""
    folder = root() / "gen" / "layouts"
    where, listed = (  # receptacles, each with where one stands to use it; the kinds of all things
        json.loads((folder / f"FloorPlan{number}-{what}.json").read_text(encoding="utf-8"))
        for what in ("openable", "objects")
    )
    found = []
    for name, place in where.items():
        kind = name.rsplit("|", 1)[-1] if name.endswith("Basin") else name.split("|")[0]
        if kind in holds():
            found.append(Receptacle(_pddl_name(name), kind, _pddl_name("|".join(["loc", *map(str, place)]))))
    kinds = {one.kind for one in found}
    for kind in sorted(set(holds()) & set(listed) - kinds):  # without a place in the list of those that can be opened
        for copy in range(1, 1 + (_BURNERS if kind == "StoveBurner" else 1)):
            id = _pddl_name(f"{kind}|{copy}")
            found.append(Receptacle(id, kind, f"loc_bar_{id}"))
        kinds.add(kind)
    things = set().union(*(holds()[kind] for kind in kinds)) & set(listed)
    lamps = tuple(one for one in LAMPS if one in listed)
    found.sort(key=lambda one: one.id)
    return Plan(number, tuple(found), tuple(sorted(kinds)), tuple(sorted(things)), lamps)


def targets(plan: Plan, kind: str) -> dict[str, tuple[str, ...]]:
    """Return what a task of a kind can be about in a floor plan: things, and for each the receptacles it may go to.

    For `light` the receptacles are kinds that it may be found in.
    """
    need = STATIONS.get(kind)
    lit = plan.lamps and not set(LAMP_PLACES).isdisjoint(plan.kinds)
    if (need and need[1] not in plan.kinds) or (kind == "light" and not lit):
        return {}
    found = {}
    for thing in plan.things:
        if need and thing not in objects_with(need[0]):
            continue
        fit = [place for place in plan.kinds if thing in holds()[place]]
        to = tuple(place for place in fit if not (need and place == need[1]))
        if to and (len(fit) > 1 or kind == "light"):  # it has to be somewhere else at first
            found[thing] = to
    return found


@cache
def plans_for(kind: str, testing: bool | None) -> tuple[int, ...]:
    """Return the floor plans that a kind of task can be played in: those for testing, the others, or all (None)."""
    tested = set(tables().TEST_SCENE_NUMBERS)
    return tuple(number for number in PLANS if testing in (None, number in tested) and targets(plan_of(number), kind))


def _pddl_name(name: str) -> str:
    """Spell a name as the published games do, in the letters that PDDL allows."""
    for sign, word in {"|": "_bar_", "+": "_plus_", "-": "_minus_", ".": "_dot_"}.items():
        name = name.replace(sign, word)
    return name.lower()


# The start and the goal of a generated game in PDDL: as the published games have it, but for what a home lacks.

START_LOCATION = "loc_bar_start"
# The rules name these types.
_RULE_PLACES = ("Fridge", "Microwave", "SinkBasin")
_RULE_THINGS = ("ButterKnife", "Knife")
_CAPABLE = ("Cleanable", "Coolable", "Heatable", "Sliceable", "Toggleable")


def write_problem(home: Sequence[Receptacle], held: Sequence[tuple[str, str, Receptacle]], goal: str) -> str:
    """Return the problem.

    Args:
        home: its receptacles.
        held: its things: id, kind, where it is.
        goal: the package's goal, which closes the problem's parenthesis.
    """
    places = sorted({one.kind for one in home} | set(_RULE_PLACES))
    things = sorted({kind for _, kind, _ in held} | set(_RULE_THINGS))
    objects = [
        "agent1 - agent",
        *(f"{kind}Type - rtype" for kind in places),
        *(f"{kind}Type - otype" for kind in things),
        *(f"{one.id} - receptacle" for one in home),
        *(f"{id} - object" for id, _, _ in held),
        *(f"{location} - location" for location in sorted({one.location for one in home} | {START_LOCATION})),
    ]
    init = ["(= (total-cost) 0)", f"(atLocation agent1 {START_LOCATION})", *_place_facts(home), *_thing_facts(held)]
    init += [
        f"(canContain {place}Type {thing}Type)"
        for place in sorted({one.kind for one in home})
        for thing in things
        if thing in holds()[place]
    ]
    lines = ["(define (problem home)", "(:domain alfred)", "(:objects", *objects, ")", "(:init", *init, ")"]
    return "\n".join([*lines, goal.strip()])


def _place_facts(home: Iterable[Receptacle]) -> Iterable[str]:
    for one in home:
        yield f"(receptacleType {one.id} {one.kind}Type)"
        yield f"(receptacleAtLocation {one.id} {one.location})"
        if one.kind in OPENABLE:
            yield f"(openable {one.id})"


def _thing_facts(held: Iterable[tuple[str, str, Receptacle]]) -> Iterable[str]:
    for id, kind, place in held:
        yield f"(objectType {id} {kind}Type)"
        yield f"(inReceptacle {id} {place.id})"
        yield f"(objectAtLocation {id} {place.location})"
        if kind not in LAMPS:
            yield f"(pickupable {id})"
        for what in _CAPABLE:
            if kind in objects_with(what):
                yield f"({what.lower()} {id})"

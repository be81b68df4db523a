"""The start and the goal of a generated game in PDDL: as the published games have it, but for what a home lacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gentax.domains.alfworld.homes import LAMPS, OPENABLE, Receptacle, capable, holds

START = "loc_bar_start"
# The rules name these types.
_PLACES = ("Fridge", "Microwave", "SinkBasin")
_THINGS = ("ButterKnife", "Knife")
_CAPABLE = ("Cleanable", "Coolable", "Heatable", "Sliceable", "Toggleable")


def write(home: Sequence[Receptacle], held: Sequence[tuple[str, str, Receptacle]], goal: str) -> str:
    """Return the problem.

    Args:
        home: its receptacles.
        held: its things: id, kind, where it is.
        goal: the package's goal, which closes the problem's parenthesis.
    """
    places = sorted({one.kind for one in home} | set(_PLACES))
    things = sorted({kind for _, kind, _ in held} | set(_THINGS))
    objects = [
        "agent1 - agent",
        *(f"{kind}Type - rtype" for kind in places),
        *(f"{kind}Type - otype" for kind in things),
        *(f"{one.id} - receptacle" for one in home),
        *(f"{id} - object" for id, _, _ in held),
        *(f"{location} - location" for location in sorted({one.location for one in home} | {START})),
    ]
    init = ["(= (total-cost) 0)", f"(atLocation agent1 {START})", *_places(home), *_things(held)]
    init += [
        f"(canContain {place}Type {thing}Type)"
        for place in sorted({one.kind for one in home})
        for thing in things
        if thing in holds()[place]
    ]
    lines = ["(define (problem home)", "(:domain alfred)", "(:objects", *objects, ")", "(:init", *init, ")"]
    return "\n".join([*lines, goal.strip()])


def _places(home: Iterable[Receptacle]) -> Iterable[str]:
    for one in home:
        yield f"(receptacleType {one.id} {one.kind}Type)"
        yield f"(receptacleAtLocation {one.id} {one.location})"
        if one.kind in OPENABLE:
            yield f"(openable {one.id})"


def _things(held: Iterable[tuple[str, str, Receptacle]]) -> Iterable[str]:
    for id, kind, place in held:
        yield f"(objectType {id} {kind}Type)"
        yield f"(inReceptacle {id} {place.id})"
        yield f"(objectAtLocation {id} {place.location})"
        if kind not in LAMPS:
            yield f"(pickupable {id})"
        for what in _CAPABLE:
            if kind in capable(what):
                yield f"({what.lower()} {id})"

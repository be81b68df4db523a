"""What a task asks for, and how much of it is done."""

from __future__ import annotations

from dataclasses import dataclass

from gentax.domains.alfworld.facts import Facts

TYPES = {  # kind of task -> the package's name for it
    "place": "pick_and_place_simple",
    "light": "look_at_obj_in_light",
    "clean": "pick_clean_then_place_in_recep",
    "heat": "pick_heat_then_place_in_recep",
    "cool": "pick_cool_then_place_in_recep",
    "two": "pick_two_obj_and_place",
}
CHANGED = {"clean": "isclean", "heat": "ishot", "cool": "iscool"}  # kind of task -> what the thing must have become


@dataclass(frozen=True, slots=True)
class Wish:
    """The goal of a game. Kinds of thing and receptacle are in lower case, as the engine says them."""

    kind: str  # one of `TYPES`
    thing: str
    to: str  # the kind of receptacle it goes to; empty for `light`
    lamp: str  # empty but for `light`
    words: str  # the engine's sentence, without capital and full stop

    @property
    def count(self) -> int:
        """How many things are asked for."""
        return 2 if self.kind == "two" else 1


def things_of(facts: Facts, kind: str) -> list[str]:
    """Return the things of a kind."""
    return [thing for thing, type_ in facts.all("objecttype") if type_ == f"{kind}type"]


def places_of(facts: Facts, kind: str) -> list[str]:
    """Return the receptacles of a kind, in the order of the engine's list."""
    return [place for place, type_ in facts.all("receptacletype") if type_ == f"{kind}type"]


def progress(facts: Facts, wish: Wish) -> float:
    """Return the share of a task's steps that are done, of those before the last: below 1.

    The steps are, for each thing asked for: it is taken, it is changed where that is asked, it is put away; for
    `light`: it is taken, the lamp beside it is on.
    """
    things = things_of(facts, wish.thing)
    if wish.kind == "light":
        return any(facts.holds("holds", "agent1", one) for one in things) / 2
    return max((_stored(facts, wish, place, things) for place in places_of(facts, wish.to)), default=0.0)


def _stored(facts: Facts, wish: Wish, place: str, things: list[str]) -> float:
    """Return the share that is done with `place` as the place to go to."""
    changed = CHANGED.get(wish.kind)
    parts = []
    for thing in things:
        stored = facts.holds("inreceptacle", thing, place)
        taken = stored or facts.holds("holds", "agent1", thing)
        if changed:
            parts.append((taken + facts.holds(changed, thing)) / 3)
        else:
            parts.append((taken + (stored and wish.count > 1)) / 2)
    return sum(sorted(parts, reverse=True)[: wish.count]) / wish.count

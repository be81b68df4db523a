"""Games made for a task: a floor plan, some of its receptacles, things in them, and something to do with one of them.

All of it is drawn from the task's seed. What is sought lies in one of the first places where one would look
(`Spec.looks`), and not where it has to go. Games of `test` are in floor plans of their own, as the package has them,
those of `seen` in the floor plans of `train`, unless the level names the one plan for all. No two splits have games
that look the same in every part.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from random import Random
from typing import NamedTuple

from gentax.core.errors import UsageError
from gentax.core.task import stable_seed
from gentax.domains.alfworld.homes import (
    LAMP_PLACES,
    STATIONS,
    Plan,
    Receptacle,
    fit_for,
    holds,
    plan_of,
    targets,
)
from gentax.domains.alfworld.levels import Spec
from gentax.domains.alfworld.names import named
from gentax.domains.alfworld.package import goals
from gentax.domains.alfworld.problem import write
from gentax.domains.alfworld.wish import TYPES, Wish

PARTS = 8  # of all games: one for each split but train, the rest for train


class Start(NamedTuple):
    """A game before it is played."""

    problem: str  # in PDDL
    wish: Wish
    told: str  # all of it in the engine's names: two games with the same text cannot be told apart by playing


def draw(spec: Spec, split: str, index: int, seed: int) -> Start:
    """Return the game of a task: the first of its split among those that its seed draws."""
    kind = spec.kinds[index % len(spec.kinds)]
    attempt = 0
    while True:
        rng = Random(stable_seed("alfworld", seed, attempt))
        start = _draw(spec, kind, plan_of(rng.choice(_plans(spec, kind, split))), rng)
        if start is not None and _split_of(start) == split:
            return start
        attempt += 1


def fit(spec: Spec) -> None:
    """Check that every kind of task of a level can be played.

    Raises:
        UsageError: the level names a floor plan in which no task of a kind can be done.
    """
    for kind in spec.kinds:
        _plans(spec, kind, "train")


def _plans(spec: Spec, kind: str, split: str) -> tuple[int, ...]:
    if spec.plan is None:
        return fit_for(kind, split == "test")
    if spec.plan not in fit_for(kind, None):
        raise UsageError(f"FloorPlan{spec.plan} of alfworld has nothing for a task of kind {kind!r}")
    return (spec.plan,)


def _split_of(start: Start) -> str:
    """Return the split that a game may be in, by a hash of all that can be told of it."""
    digest = hashlib.blake2b(start.told.encode(), digest_size=8).digest()
    return {0: "seen", 1: "test"}.get(digest[0] % PARTS, "train")


def _draw(spec: Spec, kind: str, plan: Plan, rng: Random) -> Start | None:
    """Return one game, or None where the few receptacles that were drawn leave no place for it."""
    about = targets(plan, kind)
    thing = rng.choice(list(about))
    to = rng.choice(about[thing]) if kind != "light" else ""
    lamp = rng.choice(plan.lamps) if kind == "light" else ""
    home = _home(spec, kind, plan, thing, to, rng)
    places = [one for one in home if thing in holds()[one.kind] and one.kind != to][: spec.looks]
    lamp_places = [one for one in home if one.kind in LAMP_PLACES][: spec.looks]
    if not places or (lamp and not lamp_places):
        return None
    count = 2 if kind == "two" else 1
    held = [(thing, rng.choice(places)) for _ in range(count)]
    if lamp:
        held.append((lamp, rng.choice(lamp_places)))
    held += _others(spec.things - len(held), plan, home, thing, to, rng)
    said = rng.choice(goals()[TYPES[kind]]["templates"])
    words = said.format(obj=thing.lower(), recep=to.lower(), toggle=lamp.lower(), mrecep="")
    wish = Wish(kind, thing.lower(), to.lower(), lamp.lower(), words)
    goal = goals()[TYPES[kind]]["pddl"].format(obj=thing, recep=to, toggle=lamp, mrecep="").replace("#", "-")
    numbered = _numbered(held, rng)
    return Start(write(home, numbered, goal), wish, _told(home, numbered, words))


def _home(spec: Spec, kind: str, plan: Plan, thing: str, to: str, rng: Random) -> list[Receptacle]:
    """Draw the receptacles of a home, those that the task needs among them; in the order of the engine's list."""
    if len(plan.receptacles) <= spec.places:
        return list(plan.receptacles)
    needed = [STATIONS[kind][1]] if kind in STATIONS else []
    needed += [to] if to else [rng.choice([one for one in plan.kinds if one in LAMP_PLACES])]
    needed.append(rng.choice([one for one in plan.kinds if thing in holds()[one] and one != to]))
    home = {rng.choice([one for one in plan.receptacles if one.kind == place]) for place in dict.fromkeys(needed)}
    rest = [one for one in plan.receptacles if one not in home]
    home.update(rng.sample(rest, min(len(rest), spec.places - len(home))))
    return [one for one in plan.receptacles if one in home]


def _others(
    count: int, plan: Plan, home: list[Receptacle], thing: str, to: str, rng: Random
) -> list[tuple[str, Receptacle]]:
    """Draw things that are not needed, now and then another of the kind that is, and where they lie."""
    found: list[tuple[str, Receptacle]] = []
    for _ in range(count):
        other = rng.choice(plan.things)
        places = [one for one in home if other in holds()[one.kind] and not (other == thing and one.kind == to)]
        if places and sum(other == name for name, _ in found) < 3:
            found.append((other, rng.choice(places)))
    return found


def _told(home: list[Receptacle], numbered: list[tuple[str, str, Receptacle]], words: str) -> str:
    """Return what is asked, every receptacle, and what is in it."""
    names = named([one.id for one in home] + [id for id, _, _ in numbered])
    lines = [
        f"{names[one.id]}: {', '.join(sorted(names[id] for id, _, place in numbered if place == one))}" for one in home
    ]
    return "\n".join([words, *sorted(lines)])


def _numbered(held: list[tuple[str, Receptacle]], rng: Random) -> list[tuple[str, str, Receptacle]]:
    """Give each thing an id, so that its number says nothing of where it lies; return (id, kind, place)."""
    held = rng.sample(held, len(held))
    counts: Counter[str] = Counter()
    numbered = []
    for kind, place in held:
        counts[kind] += 1
        numbered.append((f"{kind.lower()}_bar_{counts[kind]:02}", kind, place))
    return numbered

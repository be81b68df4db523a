"""Games made for a task: a floor plan, some of its receptacles, things in them, and something to do with one of them.

All of it is drawn from the task's seed. What is sought lies in one of the first places where one would look
(`Spec.looks`), and not where it has to go. A hash of floor plan and goal decides the split, so that no goal is asked
for in one floor plan in two splits. Games of `test` are moreover in floor plans of their own, as the package has them,
unless the level names the one plan for all.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from random import Random
from typing import NamedTuple

from gentax.core.errors import UsageError
from gentax.core.task import content_hash, split_of, stable_seed
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


class Goal(NamedTuple):
    """What can be asked for in a floor plan."""

    thing: str
    to: str  # the kind of receptacle it goes to; empty for `light`
    lamp: str  # empty but for `light`
    content: str  # hash of the floor plan and of all of the above


class Start(NamedTuple):
    """A game before it is played."""

    problem: str  # in PDDL
    wish: Wish
    told: str  # all of it in the engine's names: two games with the same text cannot be told apart by playing
    content: str  # hash of floor plan and goal


def draw(spec: Spec, split: str, index: int, seed: int) -> Start:
    """Return the game of a task: the first that fits among those that its seed draws. Raises UsageError as `fit`."""
    kind = spec.kinds[index % len(spec.kinds)]
    plans = _plans(spec, kind, split)
    attempt = 0
    while True:
        rng = Random(stable_seed("alfworld", seed, attempt))
        plan = rng.choice(plans)
        start = _draw(spec, kind, plan_of(plan), rng.choice(_goals(plan, kind, split)), rng)
        if start is not None:
            return start
        attempt += 1


def fit(spec: Spec, split: str) -> None:
    """Check that every kind of task of a level can be played in a split.

    Raises:
        UsageError: the level names a floor plan in which no task of a kind can be done, or none of the split.
    """
    for kind in spec.kinds:
        _plans(spec, kind, split)


def _plans(spec: Spec, kind: str, split: str) -> tuple[int, ...]:
    if spec.plan is None:
        return tuple(plan for plan in fit_for(kind, split == "test") if _goals(plan, kind, split))
    if spec.plan not in fit_for(kind, None):
        raise UsageError(f"FloorPlan{spec.plan} of alfworld has nothing for a task of kind {kind!r}")
    if not _goals(spec.plan, kind, split):
        raise UsageError(f"FloorPlan{spec.plan} of alfworld has no {split} goal of kind {kind!r}: name another plan")
    return (spec.plan,)


@cache
def _goals(number: int, kind: str, split: str) -> tuple[Goal, ...]:
    """Return what a split asks for in a floor plan, by a hash of plan and goal."""
    plan = plan_of(number)
    asked = [
        (thing, to, lamp)
        for thing, places in targets(plan, kind).items()
        for to in ([""] if kind == "light" else places)
        for lamp in (plan.lamps if kind == "light" else [""])
    ]
    goals = [Goal(*one, content_hash("alfworld", number, kind, *one)) for one in asked]
    return tuple(goal for goal in goals if split_of(goal.content) == split)


def _draw(spec: Spec, kind: str, plan: Plan, goal: Goal, rng: Random) -> Start | None:
    """Return one game, or None where the few receptacles that were drawn leave no place for it."""
    thing, to, lamp, content = goal
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
    pddl = goals()[TYPES[kind]]["pddl"].format(obj=thing, recep=to, toggle=lamp, mrecep="").replace("#", "-")
    numbered = _numbered(held, rng)
    return Start(write(home, numbered, pddl), wish, _told(home, numbered, words), content)


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

"""The games of a level: the goal of a game and its progress, generated games, and the published ones."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from gentax.core.env import content_hash, split_of, stable_seed
from gentax.core.errors import UsageError
from gentax.core.files import read_json
from gentax.domains.alfworld import LevelSpec
from gentax.domains.alfworld.engine import Facts
from gentax.domains.alfworld.homes import (
    LAMP_PLACES,
    STATIONS,
    Plan,
    Receptacle,
    display_names,
    goals,
    holds,
    plan_of,
    plans_for,
    targets,
    write_problem,
)

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
class GameGoal:
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


def objects_of_kind(facts: Facts, kind: str) -> list[str]:
    """Return the things of a kind."""
    return facts.having("objecttype", f"{kind}type")


def receptacles_of_kind(facts: Facts, kind: str) -> list[str]:
    """Return the receptacles of a kind, in the order of the engine's list."""
    return facts.having("receptacletype", f"{kind}type")


def progress(facts: Facts, goal: GameGoal) -> float:
    """Return the share of a task's steps that are done, of those before the last: below 1.

    The steps are, for each thing asked for: it is taken, it is changed where that is asked, it is put away; for
    `light`: it is taken, the lamp beside it is on.
    """
    things = objects_of_kind(facts, goal.thing)
    if goal.kind == "light":
        return any(facts.holds("holds", "agent1", one) for one in things) / 2
    return max((_stored(facts, goal, place, things) for place in receptacles_of_kind(facts, goal.to)), default=0.0)


def _stored(facts: Facts, goal: GameGoal, place: str, things: list[str]) -> float:
    """Return the share that is done with `place` as the place to go to."""
    changed = CHANGED.get(goal.kind)
    parts = []
    for thing in things:
        stored = facts.holds("inreceptacle", thing, place)
        taken = stored or facts.holds("holds", "agent1", thing)
        if changed:
            parts.append((taken + facts.holds(changed, thing)) / 3)
        else:
            parts.append((taken + (stored and goal.count > 1)) / 2)
    return sum(sorted(parts, reverse=True)[: goal.count]) / goal.count


# Games made for a task: a floor plan, some of its receptacles, things in them, and something to do with one of them.
#
# All of it is drawn from the task's seed. What is sought lies in one of the first places where one would look
# (`LevelSpec.looks`), and not where it has to go. A hash of floor plan and goal decides the split, so that no goal is
# asked for in one floor plan in two splits. Games of `test` are moreover in floor plans of their own, as the package
# has them, unless the level names the one plan for all.


class Target(NamedTuple):
    """What can be asked for in a floor plan."""

    thing: str
    to: str  # the kind of receptacle it goes to; empty for `light`
    lamp: str  # empty but for `light`
    content: str  # hash of the floor plan and of all of the above


class Start(NamedTuple):
    """A game before it is played."""

    problem: str  # in PDDL
    goal: GameGoal
    description: str  # all of it in the engine's names: two games with the same text cannot be told apart by playing
    content: str  # hash of floor plan and goal


def draw(spec: LevelSpec, split: str, index: int, seed: int) -> Start:
    """Return the game of a task: the first that fits among those that its seed draws. Raises UsageError as `fit`."""
    kind = spec.kinds[index % len(spec.kinds)]
    plans = _plans(spec, kind, split)
    attempts = (Random(stable_seed("alfworld", seed, attempt)) for attempt in count())
    return next(start for rng in attempts if (start := _sample_start(spec, kind, split, rng.choice(plans), rng)))


def fit(spec: LevelSpec, split: str) -> None:
    """Check that every kind of task of a level can be played in a split.

    Raises:
        UsageError: the level names a floor plan in which no task of a kind can be done, or none of the split.
    """
    for kind in spec.kinds:
        _plans(spec, kind, split)


def _plans(spec: LevelSpec, kind: str, split: str) -> tuple[int, ...]:
    if spec.plan is None:
        return tuple(plan for plan in plans_for(kind, split == "test") if _targets(plan, kind, split))
    if spec.plan not in plans_for(kind, None):
        raise UsageError(f"FloorPlan{spec.plan} of alfworld has nothing for a task of kind {kind!r}")
    if not _targets(spec.plan, kind, split):
        raise UsageError(f"FloorPlan{spec.plan} of alfworld has no {split} goal of kind {kind!r}: name another plan")
    return (spec.plan,)


@cache
def _targets(number: int, kind: str, split: str) -> tuple[Target, ...]:
    """Return what a split asks for in a floor plan, by a hash of plan and goal."""
    plan = plan_of(number)
    asked = [
        (thing, to, lamp)
        for thing, places in targets(plan, kind).items()
        for to in ([""] if kind == "light" else places)
        for lamp in (plan.lamps if kind == "light" else [""])
    ]
    found = [Target(*one, content_hash("alfworld", number, kind, *one)) for one in asked]
    return tuple(target for target in found if split_of(target.content) == split)


def _sample_start(spec: LevelSpec, kind: str, split: str, number: int, rng: Random) -> Start | None:
    """Return one game, or None where the few receptacles that were drawn leave no place for it."""
    plan = plan_of(number)
    thing, to, lamp, content = rng.choice(_targets(number, kind, split))
    home = _home(spec, kind, plan, thing, to, rng)
    places = [one for one in home if thing in holds()[one.kind] and one.kind != to][: spec.looks]
    lamp_places = [one for one in home if one.kind in LAMP_PLACES][: spec.looks]
    if not places or (lamp and not lamp_places):
        return None
    held = [(thing, rng.choice(places)) for _ in range(2 if kind == "two" else 1)]
    if lamp:
        held.append((lamp, rng.choice(lamp_places)))
    held += _others(spec.things - len(held), plan, home, thing, to, rng)
    said = rng.choice(goals()[TYPES[kind]]["templates"])
    words = said.format(obj=thing.lower(), recep=to.lower(), toggle=lamp.lower(), mrecep="")
    goal = GameGoal(kind, thing.lower(), to.lower(), lamp.lower(), words)
    pddl = goals()[TYPES[kind]]["pddl"].format(obj=thing, recep=to, toggle=lamp, mrecep="").replace("#", "-")
    numbered = _numbered(held, rng)
    return Start(write_problem(home, numbered, pddl), goal, _description(home, numbered, words), content)


def _home(spec: LevelSpec, kind: str, plan: Plan, thing: str, to: str, rng: Random) -> list[Receptacle]:
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
    most: int, plan: Plan, home: list[Receptacle], thing: str, to: str, rng: Random
) -> list[tuple[str, Receptacle]]:
    """Draw things that are not needed, now and then another of the kind that is, and where they lie."""
    found: list[tuple[str, Receptacle]] = []
    for _ in range(most):
        other = rng.choice(plan.things)
        places = [one for one in home if other in holds()[one.kind] and not (other == thing and one.kind == to)]
        if places and sum(other == name for name, _ in found) < 3:
            found.append((other, rng.choice(places)))
    return found


def _description(home: list[Receptacle], numbered: list[tuple[str, str, Receptacle]], words: str) -> str:
    """Return what is asked, every receptacle, and what is in it."""
    names = display_names([one.id for one in home] + [id for id, _, _ in numbered])
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


# The published games, where a user has them: a folder for each of three splits, a folder for each game.
#
# Nothing of them comes with gentax. Of a game its start, its goal and the sentence that asks for it are read; rules
# and wording are those of the installed package, so that no expression of a data file is ever evaluated. Left out, as
# in the package: games with movable receptacles or sliced things, and those that are marked as unsolvable. Left out
# as well: games of valid_seen and valid_unseen whose goal is one of train's in the same floor plan, so that splits
# share none.

VARIABLE = "ALFWORLD_DATA"
FOLDERS = {"train": "train", "validation": "valid_seen", "test": "valid_unseen"}  # by split
GAME, TRAJECTORY = "game.tw-pddl", "traj_data.json"
_KIND_OF_TYPE = {name: kind for kind, name in TYPES.items()}
_ASKED = re.compile(r"Your task is to: ([^\"\n]{1,200}?)\.?\"")
_UNSOLVABLE = re.compile(rb'"solvable":\s*(false|null)')
_END = 1 << 16  # bytes; the mark is among the last entries of a file of some hundred kilobytes
_MEND = "`alfworld-download` fetches the published games"


def read_official() -> dict[str, tuple[Path, ...]]:
    """Find the games by split, in an order of which any first few are a fair sample.

    They are in the folder that ALFWORLD_DATA names, or in the one within that the download makes.

    Raises:
        UsageError: the variable is not set, or what it names is not there or not whole.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        raise UsageError(f"level 'official' of alfworld: set {VARIABLE} to the folder of the published games; {_MEND}")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UsageError(f"{VARIABLE}={folder}: not a folder; {_MEND}")
    inner = sorted(folder.glob("json_*"))
    base = next((one for one in (folder, *reversed(inner)) if (one / FOLDERS["train"]).is_dir()), folder)
    games: dict[str, tuple[Path, ...]] = {}
    earlier: set[str] = set()
    for split, name in FOLDERS.items():
        games[split] = tuple(game for game in _games(base / name) if game.parent.name not in earlier)
        earlier |= {game.parent.name for game in games[split]}
    return games


@cache
def _games(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise UsageError(f"{VARIABLE}: {folder} is missing; {_MEND}")
    found, lacking = [], []
    for trajectory in folder.rglob(TRAJECTORY):
        game = trajectory.parent
        if "movable" in str(game) or "Sliced" in str(game):
            continue
        if not (game / GAME).is_file():
            lacking.append(game)
        elif not _UNSOLVABLE.search(_end_of(game / GAME)):
            found.append(game)
    if lacking:
        raise UsageError(
            f"{VARIABLE}: {len(lacking)} games of {folder} have no {GAME}, the first is {min(lacking).name}; "
            f"{_MEND}, `alfworld-generate` makes these"
        )
    if not found:
        raise UsageError(f"{VARIABLE}: no game in {folder}; {_MEND}")
    return tuple(sorted(found, key=lambda game: stable_seed("alfworld official", game.parent.name, game.name)))


def _end_of(file: Path) -> bytes:
    with file.open("rb") as source:
        source.seek(max(0, file.stat().st_size - _END))
        return source.read()


def read_game(game: Path) -> Start:
    """Read one of the published games. Raises UsageError where a file cannot be read or is not as published."""
    made, told = _json(game / GAME), _json(game / TRAJECTORY)
    try:
        asked = told["pddl_params"]
        kind = _KIND_OF_TYPE[told["task_type"]]
        words = _ASKED.search(made["grammar"])[1]
        goal = GameGoal(
            kind,
            asked["object_target"].lower(),
            asked["parent_target"].lower() if kind != "light" else "",
            asked["toggle_target"].lower() if kind == "light" else "",
            words,
        )
        problem = str(made["pddl_problem"])
        # The name of the folder above a game is its kind, its objects and its floor plan.
        return Start(problem, goal, f"{words}\n{problem}", content_hash("alfworld official", game.parent.name))
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(f"{game}: not as published ({error!r}); {_MEND}") from error


def _json(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
    except UsageError as error:
        raise UsageError(f"{error}; {_MEND}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file}: not a game; {_MEND}")
    return content

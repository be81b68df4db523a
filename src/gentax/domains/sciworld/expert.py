"""The expert: stored plans made from the package's gold paths, and why each action is next."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from gentax.core.files import write_json
from gentax.domains.sciworld import SIMPLIFICATION, Variation, turn_seed
from gentax.domains.sciworld.simulator import Simulator

Plan = tuple[str, ...]  # actions; empty when no plan is known


def plan_for(variation: Variation) -> Plan:
    """Return the plan of a variation: shipped, kept, or made now (seconds) and kept."""
    shipped = _shipped().get(variation.name, {}).get(str(variation.number))
    return kept_plan(variation) if shipped is None else tuple(shipped)


def kept_plan(variation: Variation) -> Plan:
    """Return the plan of a variation from the cache; make it and keep it there when it is not."""
    path = cache_folder() / variation.name / f"{variation.number}.json"
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # not there, or cut short by somebody else: made again
        pass
    server = Simulator()
    try:
        plan = make_plan(server, variation)
    finally:
        server.close()
    with suppress(OSError):  # with nowhere to keep it, it is made again next time
        write_json(path, plan)
    return plan


def cache_folder() -> Path:
    """Return where plans of this version of the package are kept."""
    root = Path(os.environ.get("GENTAX_CACHE") or Path.home() / ".cache" / "gentax")
    return root / "sciworld" / f"plans-{version('scienceworld')}-{SIMPLIFICATION}"


def make_plan(server: Simulator, variation: Variation) -> Plan:
    """Have the package make its gold path and return the shortest form of it that solves the variation."""
    load = ("load", variation.name, variation.number, SIMPLIFICATION, True)
    path = [action.strip() for action in server(load, ("getGoldActionSequence",))[1]]
    played = play(server, variation, path)
    if played is None:
        return ()
    walked = shorten(played)
    plain = [action for action, _ in played]
    for candidate in (rename(played, walked), walked, plain):
        again = play(server, variation, candidate)
        if again is not None:
            return tuple(action for action, _ in again)
    return ()


class Turn(NamedTuple):
    """One action of a path and what the simulator said."""

    action: str
    answer: str


def play(server: Simulator, variation: Variation, actions: Sequence[str]) -> list[Turn] | None:
    """Play `actions` from the start; return them up to success, or None when they fail."""
    server(("load", variation.name, variation.number, SIMPLIFICATION, False))
    played = []
    for turn, action in enumerate(actions):
        calls = ("step", action), ("getScore",), ("getCompleted",)
        answer, score, completed = server(*calls, seed=turn_seed(variation, turn))
        played.append(Turn(action, answer))
        if score < 0:
            return None
        if completed:
            return played if score > 0.995 else None
    return None


_GO = re.compile(r"go (?:to )?(.+)")


def shorten(played: Iterable[Turn]) -> list[str]:
    """Drop what changes nothing, teleport where the path walks, and look before something is named."""
    short: list[str] = []
    seen = True  # the place as it now is; the first observation shows it
    for action, answer in played:
        if answer == "The door is already open.":
            continue
        if action == "look around":
            if not seen:
                short.append(action)
            seen = True
            continue
        moved = re.match(r"You move to the (.+?)\.$", answer)
        if moved and _GO.match(action):
            if short and short[-1].startswith("teleport to "):
                short.pop()
            short.append(f"teleport to {moved[1]}")
            seen = False
        else:
            if not seen and action.startswith("focus on "):
                short.append("look around")  # a name has to be seen before it can be said
                seen = True
            short.append(action)
    return short


def rename(played: Iterable[Turn], short: Sequence[str]) -> list[str]:
    """Name what is focused on and carried as the simulator named it, so that the name stands in an observation."""
    names: dict[str, str] = {}  # how the path calls a thing → how the simulator does
    for action, answer in played:
        focus = re.match(r"You focus on the (.+)\.$", answer)
        if focus and action.startswith("focus on "):
            called = action.removeprefix("focus on ")
            # Before a first turn has passed, the simulator has no name for a plant but that; it shows the right one.
            names[called] = called.removeprefix("adult ") if focus[1] == "plant" else focus[1]
    renamed = []
    carried = ""
    for action in short:
        if action.startswith("focus on "):
            action = f"focus on {names.get(action.removeprefix('focus on '), action.removeprefix('focus on '))}"
        elif action.startswith("pick up "):
            carried = names.get(action.removeprefix("pick up "), action.removeprefix("pick up "))
            action = f"pick up {carried}"
        elif moved := re.match(r"move (.+?)( in inventory)? to (.+)$", action):
            thing = re.sub(r" (?:containing|in) .*", "", moved[1])
            known = [name for name in names.values() if f" {name} " in f" {thing} "]
            thing = known[0] if known else carried if moved[2] and carried else names.get(thing, thing)
            action = f"move {thing} to {moved[3]}"
        renamed.append(action)
    return renamed


@cache
def _shipped() -> Mapping[str, Mapping[str, Sequence[str]]]:
    resource = files(__package__) / "gold.json"
    if not resource.is_file():
        return {}
    stored = json.loads(resource.read_text(encoding="utf-8"))
    return stored["plans"] if stored["simplification"] == SIMPLIFICATION else {}


# Why the expert does what it does, in a short sentence made from the goal and the rest of the plan.


def thought(goal: str, rest: Sequence[str]) -> str:
    """Return why `rest[0]` is next, in about a dozen words, given the goal and the plan from there on."""
    action, later = rest[0], rest[1:]
    verb = action.split(" ", 1)[0]
    sought = re.search(r"find a\(n\) (.+?)\.", goal)
    life = re.search(r"(longest|shortest) life span", goal)
    if verb == "teleport":
        return _teleport(action.removeprefix("teleport to "), later, sought[1] if sought else "", bool(life))
    if action == "look around":
        return "I have to see what is here."
    if verb == "focus":
        name = action.removeprefix("focus on ")
        if sought:
            return f"The {name} is {_a(sought[1])}: focus on it."
        if life:
            return f"Of the animals here the {name} has the {life[1]} life: focus on it."
        return f"The goal asks for the {name}: focus on it."
    if verb == "pick":
        place = _destination(later)
        return f"Take it along to the {place}." if place else "I will need it: take it."
    if verb == "move" and (parts := re.match(r"move (.+) to (.+)$", action)):
        return f"Now put the {parts[1]} in the {parts[2]}." if "box" in parts[2] else f"It belongs in the {parts[2]}."
    if verb == "use" and (parts := re.match(r"use (.+?)(?: in inventory)? on (.+?)(?: in inventory)?$", action)):
        return f"Use the {parts[1]} to learn about the {parts[2]}."
    if action.startswith("wait"):
        return "This takes time: wait."
    return f"To get on I have to {action}."


def _teleport(room: str, later: Sequence[str], sought: str, life: bool) -> str:
    where = "outside" if room == "outside" else f"in the {room}"
    stay = []
    for action in later:
        if action.startswith("teleport to "):
            break
        stay.append(action)
    if any(action.startswith("focus on ") for action in stay):
        if sought:
            return f"I may find {_a(sought)} {where}: go there."
        if life:
            return f"The animals are {where}: go there."
    for action in stay:
        if parts := re.match(r"move (.+) to (.+)$", action):
            return f"The {parts[2]} is {where}: go there."
        if action.startswith(("pick up ", "use ", "activate ", "focus on ", "read ", "open ")):
            thing = re.sub(r"^(pick up|use|activate|focus on|read|open) | in inventory.*| on .*", "", action)
            return f"I need the {thing} {where}: go there."
    return f"The next thing to do is {where}: go there."


def _destination(later: Sequence[str]) -> str:
    for action in later:
        if parts := re.match(r"move .+ to (.+)$", action):
            return parts[1]
    return ""


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1] in "aeiou" else f"a {noun}"

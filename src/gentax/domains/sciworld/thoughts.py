"""Why the expert does what it does, in a short sentence made from the goal and the rest of the plan."""

from __future__ import annotations

import re
from collections.abc import Sequence


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

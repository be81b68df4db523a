"""The expert: it follows the package's gold path, undoes steps aside, and says why it does what it does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_LOOKS = ("look around", "inventory", "task", "read ", "examine ")
_OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


def without_idle(path: Sequence[str]) -> list[str]:
    """Return the package's path without the steps it takes for nothing: it opens what it has opened already."""
    opened: set[str] = set()
    kept = []
    for action in path:
        verb, _, thing = action.partition(" ")
        if verb == "open" and thing in opened:
            continue
        if verb == "open" and not thing.startswith("door "):  # each room has a door to the east
            opened.add(thing)
        elif verb == "close":
            opened.discard(thing)
        kept.append(action)
    return kept


class PlanFollower:
    """Where somebody who plays freely stands on a path.

    Args:
        path: the actions that win the game from its start.
    """

    def __init__(self, path: Sequence[str]) -> None:
        self._path = tuple(path)
        self._done = 0
        self._undo: list[str] = []
        self._taken: set[str] = set()
        self._lost = False

    def observe(self, action: str, moved: bool) -> None:
        """Take note of an action that was accepted. `moved`: it led to another room."""
        if self._undo and action == self._undo[-1]:
            self._undo.pop()
        elif not self._undo and self.rest()[:1] == (action,):
            self._done += 1
        elif action.startswith(_LOOKS):
            pass
        elif action.startswith("move "):
            if moved:
                self._undo.append(f"move {_OPPOSITE[action.removeprefix('move ')]}")
        elif action.startswith("open door"):
            pass  # an open door is in nobody's way
        elif action.startswith("open "):
            self._undo.append(f"close {action.removeprefix('open ')}")
        elif action.startswith("close "):
            self._undo.append(f"open {action.removeprefix('close ')}")
        elif action.startswith("take "):
            self._taken.add(action)
        elif action.startswith("put "):
            take = f"take {action.removeprefix('put ').split(' in ')[0]}"
            self._taken.discard(take)
            self._undo.append(take)
        else:
            self._lost = True

    def rest(self) -> tuple[str, ...]:
        """Return what is left of the path."""
        while self._done < len(self._path) and self._path[self._done] in self._taken:
            self._taken.remove(self._path[self._done])
            self._done += 1
        return self._path[self._done :]

    def next(self) -> tuple[str, bool] | None:
        """Return the next action and whether it undoes a step aside; None when the path is lost or at its end."""
        if self._lost:
            return None
        if self._undo:
            return self._undo[-1], True
        rest = self.rest()
        return (rest[0], False) if rest else None


# Why the expert does what it does, in a short sentence made from the rest of its path and what it sees.


_HEAT = {"stove": "fry", "oven": "roast", "toaster": "grill", "barbeque": "grill"}
_CUTS = ("slice ", "chop ", "dice ")


def cooking_thought(rest: Sequence[str]) -> str:
    """Return why `rest[0]` is next in a kitchen."""
    action, later = rest[0], rest[1:]
    verb, _, thing = action.partition(" ")
    if action == "take cookbook":
        return "The recipe is in the cookbook: take it."
    if action == "read cookbook":
        return "I have to know the recipe: read it."
    if action == "take knife":
        return "Something may have to be cut: take the knife."
    if verb == "take":
        return f"The recipe needs the {thing}: take it."
    if verb == "open":
        return (
            "There may be more behind the door: open it." if "door to" in thing else f"Look into the {thing}: open it."
        )
    if verb == "close":
        return f"Done with the {thing}: close it."
    if verb == "move":
        aim = next((step for step in later if not step.startswith(("move ", "open door"))), "")
        if parts := re.match(r"cook .+ in (.+)$", aim):
            return f"The next thing needs the {parts[1]}: go {thing}."
        if aim == "prepare meal":
            return f"The meal is made in the kitchen: go {thing}."
        return f"Something is still missing: look {thing}."
    if verb == "cook" and (parts := re.match(r"(.+) in (.+)$", thing)):
        return f"The recipe says {_HEAT.get(parts[2], 'cook')} the {parts[1]}: use the {parts[2]}."
    if action.startswith(_CUTS):
        return f"The recipe says {verb} the {thing}."
    if action == "prepare meal":
        return "All of the recipe is done: prepare the meal."
    if action == "eat meal":
        return "The meal is ready: eat it."
    return ""


def mapreader_thought(rest: Sequence[str], coin: str, box: str, exits: Mapping[str, str]) -> str:
    """Return why `rest[0]` is next on the way from the box to the coin and back, given the rooms in sight."""
    action = rest[0]
    verb, _, side = action.partition(" ")
    if action == "read map":
        return f"The map tells the way to the {coin}."
    if verb == "move":
        target, what = (coin, "coin") if "take coin" in rest else (box, "box")
        room = next((room for room, at in exits.items() if at == side), "")
        if room == target:
            return f"The {what} is in the {target}, {side} of here."
        return f"The way to the {target} is by the {room}, {side} of here." if room else f"To the {target}: go {side}."
    if action == "take coin":
        return f"The coin is here: take it to the {box}."
    if action == "put coin in box":
        return "The box is here: put the coin in."
    return ""

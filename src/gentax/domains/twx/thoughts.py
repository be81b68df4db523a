"""Why the expert does what it does, in a short sentence made from the rest of its path and what it sees."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_HEAT = {"stove": "fry", "oven": "roast", "toaster": "grill", "barbeque": "grill"}
_CUTS = ("slice ", "chop ", "dice ")


def cooking(rest: Sequence[str]) -> str:
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


def mapreader(rest: Sequence[str], coin: str, box: str, exits: Mapping[str, str]) -> str:
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

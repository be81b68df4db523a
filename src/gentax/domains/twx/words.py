"""The package's texts, shortened: the same names and facts, in a third of the words.

Rooms, recipes, maps and inventories are put into one line each. Whatever is of no known form is left as it is.
"""

from __future__ import annotations

import re

_ROOM = re.compile(r"You are in the (.+?)\.\s*(.*)", re.DOTALL)
_LEAD = re.compile(r"(?:In one part of the room|In another part of the room|There is also|You also)(?: you)?(?: see)? ")
_EXIT = re.compile(r"(?:Through an (open [^,]+), t|T)o the (North|South|East|West) you see (?:the |a |an )?([^.]+)\.")
_CLOSED = re.compile(r"(.+) that is closed$")
_EMPTY = re.compile(r"(.+?),? that (?:has nothing on it|is empty)$")
_HOLDS = re.compile(r"(.+?),? that (?:has (.+) on it|contains (.+))$")
_ARTICLE = re.compile(r"^(?:and )?(?:an?|the|some) (?=.)", re.IGNORECASE)
_MAP = re.compile(r"The (.+?) connects to the (.+?)\.")


def tidy(text: str) -> str:
    """Return any text of the package in its short form."""
    text = text.strip()
    if match := _ROOM.match(text):
        return _room(match[1], match[2])
    if text.startswith("The map reads:"):
        return "Map: " + "; ".join(f"{room}: {_names(others)}" for room, others in _MAP.findall(text)) + "."
    if "Ingredients:" in text and "Directions:" in text:
        needed, _, directions = text.partition("Ingredients:")[2].partition("Directions:")
        return f"Recipe: {_lines(needed)}. Directions: {_lines(directions)}."
    if text.startswith("Inventory"):
        head, _, rest = text.partition(":")
        most = re.search(r"\d+", head)
        carried = "nothing" if "is currently empty" in rest else ", ".join(_bare(line) for line in _split(rest))
        return f"You carry {carried}" + (f" (at most {most[0]} things)." if most else ".")
    if text.startswith("Unknown action"):
        return "That cannot be done now."
    return " ".join(text.split())


def exits(look: str) -> dict[str, str]:
    """Return the rooms that `look` shows: name → the direction it is in. Closed doors show no room."""
    found = _EXIT.findall(look)
    return {room.strip(): side.lower() for _, side, room in found if not room.startswith("closed ")}


def room_of(look: str) -> str:
    """Return the room that `look` is of."""
    match = _ROOM.match(look.strip())
    return match[1] if match else ""


def _room(name: str, rest: str) -> str:
    sides = [f"{side}: {room.strip()}{f' ({door})' if door else ''}." for door, side, room in _EXIT.findall(rest)]
    shown = [part.strip().rstrip(".").strip() for part in _LEAD.split(_EXIT.sub("", rest))]
    things = [_thing(part) for part in shown if part]
    seen = f" You see {', '.join(things)}." if things else ""
    return " ".join([f"You are in the {name}.{seen}", *sides])


def _thing(text: str) -> str:
    if match := _CLOSED.match(text):
        return f"{_bare(match[1])} (closed)"
    if match := _EMPTY.match(text):
        return f"{_bare(match[1])} (empty)"
    if match := _HOLDS.match(text):
        return f"{_bare(match[1])} ({', '.join(_bare(part) for part in (match[2] or match[3]).split(', '))})"
    return _bare(text)


def _bare(text: str) -> str:
    return _ARTICLE.sub("", text.strip())


def _names(text: str) -> str:
    return ", ".join(text.replace(" and ", ", ").split(", "))


def _split(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def _lines(text: str) -> str:
    return ", ".join(_split(text))

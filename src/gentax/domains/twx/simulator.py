"""One game of the package, in a Java process shared by every game and both domains.

Unlike the package's own client this asks one thing a step and starts one process in all, whose memory has a limit.
Games do not disturb each other: each has its own generator, seeded by the task.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from gentax.core.errors import EnvironmentFault
from gentax.domains.java import Jvm, JvmConnection, SharedJvm

CLASS = "textworldexpress.runtime.PythonInterface"

OPTIONS = "-Xms64m -Xmx384m -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError"
"""Of the JVM, unless GENTAX_JAVA_OPTS is set. There is room for the domains' 256 copies of the hardest games."""


class State(NamedTuple):
    """What the package says after a step."""

    answer: str
    look: str
    inventory: str
    valid: list[str]  # in an order that changes from run to run
    score: float  # 0 to 1
    won: bool
    lost: bool


def _start() -> Jvm:
    from textworld_express.constants import BASEPATH, JAR_PATH

    return Jvm(BASEPATH, OPTIONS, (JAR_PATH,))


SHARED_JVM = SharedJvm(_start)


class Simulator(JvmConnection[Jvm]):
    """One game: a `PythonInterface` object of the package, with a connection of its own (see `JvmConnection`)."""

    def __init__(self) -> None:
        super().__init__(SHARED_JVM)
        self._loaded: tuple[str, str] | None = None
        with self.guarded():
            self._server = self._client.make(CLASS)
            self._held.append(self._server)

    def start_game(self, game: str, parameters: str, seed: int, fold: str) -> tuple[str, State, list[str]]:
        """Start a game; return what the package says its task is, the first state, and the actions that win it."""
        self._load(game, parameters)
        state = _read(self._call("generateNewGameJSON", seed, fold, True))
        description = self._call("getTaskDescription")
        with self.guarded():
            return description, state, self._client.items(self._client.call(self._server, "getGoldActionSequence"))

    def step(self, action: str) -> State:
        """Do one of the valid actions."""
        return _read(self._call("stepJSON", action))

    def folds(self, game: str) -> dict[str, list[int]]:
        """Return the package's seeds of a game by fold."""
        self._load(game, "")
        methods = {"train": "getSeedsTrain", "dev": "getSeedsDev", "test": "getSeedsTest"}
        with self.guarded():
            return {fold: self._client.items(self._client.call(self._server, name)) for fold, name in methods.items()}

    def _load(self, game: str, parameters: str) -> None:
        if self._loaded != (game, parameters):
            if complaint := self._call("load", game, parameters):
                raise EnvironmentFault(f"the package cannot load {game} with {parameters!r}: {complaint[:200]}")
            self._loaded = (game, parameters)

    def _call(self, method: str, *arguments: Any) -> Any:
        with self.guarded():
            return self._client.call(self._server, method, *arguments)


def _read(text: str) -> State:
    try:
        said = json.loads(text)
        return State(
            said["observation"],
            said["look"],
            said["inventory"],
            said["validActions"],
            said["score"],
            said["tasksuccess"],
            said["taskfailure"],
        )
    except (ValueError, KeyError, TypeError):
        raise EnvironmentFault(f"the package answered with something unknown: {text[:80]!r}") from None


# The package's texts, shortened: the same names and facts, in a third of the words. Rooms, recipes, maps and
# inventories are put into one line each. Whatever is of no known form is left as it is.

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

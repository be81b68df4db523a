"""The TextWorldExpress environments: the package's own games, in a Java process shared by every game and both domains.

An action is looked up in what the package says is possible; its texts are shortened. The expert follows the package's
gold path, undoes steps aside, and says why it does what it does.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from gentax.core.env import ExpertAction, StepResult, Task, content_hash
from gentax.core.errors import EnvironmentFault
from gentax.domains.java import Jvm, JvmConnection, JvmEnv
from gentax.domains.twx import COOKING, COOKING_DOMAIN, FIRST, FOLDS, MAPREADER, MAPREADER_DOMAIN, Game, numbers

CLASS = "textworldexpress.runtime.PythonInterface"

OPTIONS = "-Xms64m -Xmx384m -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError"
"""Of the JVM, unless GENTAX_JAVA_OPTS is set. There is room for the domains' 256 copies of the hardest games."""


class TwxState(NamedTuple):
    """What the package says after a step: the values of `_KEYS`."""

    answer: str
    look: str
    inventory: str
    valid: list[str]  # in an order that changes from run to run
    score: float  # 0 to 1
    won: bool
    lost: bool


class TwxProcess(Jvm):
    """The package's Java process."""

    def __init__(self) -> None:
        from textworld_express.constants import BASEPATH, JAR_PATH

        super().__init__(BASEPATH, OPTIONS, (JAR_PATH,))


class Simulator(JvmConnection[TwxProcess]):
    """One game: a `PythonInterface` object of the package, with a connection of its own (see `JvmConnection`).

    Unlike the package's own client this asks one thing a step and starts one process in all, whose memory has a limit.
    Games do not disturb each other: each has its own generator, seeded by the task.
    """

    def __init__(self) -> None:
        super().__init__(TwxProcess)
        self._loaded: tuple[str, str] | None = None
        with self.guarded():
            self._hold(self._client.make(CLASS))

    def start_game(self, game: str, parameters: str, seed: int, fold: str) -> tuple[str, TwxState, list[str]]:
        """Start a game; return what the package says its task is, the first state, and the actions that win it."""
        self._load(game, parameters)
        state = _read(self._call("generateNewGameJSON", seed, fold, True))
        return self._call("getTaskDescription"), state, self._call("getGoldActionSequence")

    def step(self, action: str) -> TwxState:
        """Do one of the valid actions."""
        return _read(self._call("stepJSON", action))

    def folds(self, game: str) -> dict[str, list[int]]:
        """Return the package's seeds of a game by fold."""
        self._load(game, "")
        methods = {"train": "getSeedsTrain", "dev": "getSeedsDev", "test": "getSeedsTest"}
        return {fold: self._call(name) for fold, name in methods.items()}

    def _load(self, game: str, parameters: str) -> None:
        if self._loaded != (game, parameters):
            if complaint := self._call("load", game, parameters):
                raise EnvironmentFault(f"the package cannot load {game} with {parameters!r}: {complaint[:200]}")
            self._loaded = (game, parameters)


_KEYS = ("observation", "look", "inventory", "validActions", "score", "tasksuccess", "taskfailure")


def _read(text: str) -> TwxState:
    try:
        said = json.loads(text)
        return TwxState(*(said[key] for key in _KEYS))
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
        return (
            "Map: " + "; ".join(f"{room}: {others.replace(' and ', ', ')}" for room, others in _MAP.findall(text)) + "."
        )
    if "Ingredients:" in text and "Directions:" in text:
        needed, _, directions = text.partition("Ingredients:")[2].partition("Directions:")
        return f"Recipe: {', '.join(_lines(needed))}. Directions: {', '.join(_lines(directions))}."
    if text.startswith("Inventory"):
        head, _, rest = text.partition(":")
        most = re.search(r"\d+", head)
        carried = "nothing" if "is currently empty" in rest else ", ".join(map(_bare, _lines(rest)))
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
        return f"{_bare(match[1])} ({', '.join(map(_bare, (match[2] or match[3]).split(', ')))})"
    return _bare(text)


def _bare(text: str) -> str:
    return _ARTICLE.sub("", text.strip())


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


# The expert's way.

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


class GoldPathTracker:
    """Tracks how far an episode has come along the gold path, and which steps aside have to be undone.

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
_THOUGHTS = {  # by action, else by verb
    "take cookbook": "The recipe is in the cookbook: take it.",
    "read cookbook": "I have to know the recipe: read it.",
    "take knife": "Something may have to be cut: take the knife.",
    "take": "The recipe needs the {}: take it.",
    "open": "Look into the {}: open it.",
    "close": "Done with the {}: close it.",
    "slice": "The recipe says slice the {}.",
    "chop": "The recipe says chop the {}.",
    "dice": "The recipe says dice the {}.",
    "prepare meal": "All of the recipe is done: prepare the meal.",
    "eat meal": "The meal is ready: eat it.",
}


def cooking_thought(rest: Sequence[str]) -> str:
    """Return why `rest[0]` is next in a kitchen."""
    action, later = rest[0], rest[1:]
    verb, _, thing = action.partition(" ")
    if verb == "open" and "door to" in thing:
        return "There may be more behind the door: open it."
    if verb == "move":
        aim = next((step for step in later if not step.startswith(("move ", "open door"))), "")
        if parts := re.match(r"cook .+ in (.+)$", aim):
            return f"The next thing needs the {parts[1]}: go {thing}."
        if aim == "prepare meal":
            return f"The meal is made in the kitchen: go {thing}."
        return f"Something is still missing: look {thing}."
    if verb == "cook" and (parts := re.match(r"(.+) in (.+)$", thing)):
        return f"The recipe says {_HEAT.get(parts[2], 'cook')} the {parts[1]}: use the {parts[2]}."
    return _THOUGHTS.get(action, _THOUGHTS.get(verb, "")).format(thing)


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


ACTION_LIMIT = 200  # characters; no longer string is looked at
REFUSAL = "That cannot be done now."
LOOKS = ("look around", "task")  # of a gold path: what the prompt has said already


class TwxEnv(JvmEnv):
    """A game of TextWorldExpress, on the package's own folds; what its games have in common.

    An action is valid if the package lists it, in any case and with any space around and between its words. No other
    ever reaches the package: it is answered with a sentence and changes nothing. The dense reward is the rise of the
    package's score, which ends at 1 with success; a ruined meal ends the episode as a failure.

    `expert` follows the package's gold path without the looks that tell nothing new. It undoes steps aside, and has no
    move after one that cannot be undone (see `GoldPathTracker`).
    """

    simulator = Simulator
    game: ClassVar[Game]

    def __init__(self, level: str | None = None, **settings: Any) -> None:
        super().__init__(level, **settings)
        self._state: TwxState | None = None
        self._tracker: GoldPathTracker | None = None

    @abstractmethod
    def goal_of(self, description: str) -> str:
        """Return the goal in few words, given the package's description of the task."""

    @abstractmethod
    def thought(self, rest: tuple[str, ...]) -> str:
        """Return why the first action of `rest` is next."""

    def size(self, split: str) -> int:
        return len(numbers(self.game.name, self.level, split))

    def _reset_task(self, task: Task) -> tuple[str, str]:
        number = FIRST[task.split] + numbers(self.game.name, task.level, task.split)[task.index]
        made = self.game.name, self.game.specs[task.level].parameters, number, FOLDS[task.split]
        description, self._state, path = self._start_episode(lambda simulator: simulator.start_game(*made))
        self._tracker = GoldPathTracker(without_idle([action for action in path if action not in LOOKS]))
        self._content = content_of(self.game, description, self._state.look, path)
        return self.goal_of(" ".join(description.split())), tidy(self._state.look)

    def _step(self, action: str) -> StepResult:
        simulator, before = self._running(), self._state
        asked = " ".join(action.split()).lower() if len(action) <= ACTION_LIMIT else ""
        # The package takes its own spelling only: "examine TV stand".
        action = next((offered for offered in before.valid if offered.lower() == asked), "")
        if not action:
            return StepResult(REFUSAL, 0.0, False, False, False)
        state = self._state = simulator.step(action)
        self._tracker.observe(action, moved=room_of(state.look) != room_of(before.look))
        reward = state.score - before.score if self.reward == "dense" else float(state.won)
        return StepResult(tidy(state.answer), reward, state.won or state.lost, state.won, True)

    def admissible(self) -> list[str]:
        return [] if self._state is None else sorted(self._state.valid)

    def expert(self) -> ExpertAction | None:
        if self._state is None or self._tracker is None:
            return None
        step = self._tracker.next()
        if step is None or step[0] not in self._state.valid:
            return None
        action, undoes = step
        return ExpertAction(action, "That was a step aside: undo it." if undoes else self.thought(self._tracker.rest()))

    def render(self) -> str:
        """Return the goal, the place, what is carried and the score, for a person."""
        if self._state is None:
            return ""
        place, carried = tidy(self._state.look), tidy(self._state.inventory)
        return f"{self.goal}\n\n{place}\n\n{carried}\n\nScore {self._state.score:.2f}, step {self.steps}"


def content_of(game: Game, description: str, look: str, path: list[str]) -> str:
    """Return the hash of a world: what is asked, what is in sight at first, and the way that wins."""
    return content_hash(game.name, description, look, *path)


class Cooking(TwxEnv):
    """Cook the meal of the cookbook and eat it."""

    domain = COOKING_DOMAIN
    game = COOKING

    def goal_of(self, description: str) -> str:
        return "Read the cookbook, prepare its meal and eat it."

    def thought(self, rest: tuple[str, ...]) -> str:
        return cooking_thought(rest)


class MapReader(TwxEnv):
    """Fetch a coin by the map."""

    domain = MAPREADER_DOMAIN
    game = MAPREADER

    def goal_of(self, description: str) -> str:
        match = re.search(r"located in the (.+?), and put it into the box found in the (.+?)\.", description)
        if match is None:
            raise EnvironmentFault(f"the package describes its task in another way: {description[:120]!r}")
        self._coin, self._box = match.groups()
        return f"Take the coin in the {self._coin} and put it into the box in the {self._box}."

    def thought(self, rest: tuple[str, ...]) -> str:
        return mapreader_thought(rest, self._coin, self._box, exits(self._state.look))

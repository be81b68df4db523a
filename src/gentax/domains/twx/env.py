"""The TextWorldExpress environments: the package's own games, an action looked up in what it says is possible.

The expert follows the package's gold path, undoes steps aside, and says why it does what it does.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from gentax.core.env import ExpertAction, StepResult, Task, TextEnv, content_hash
from gentax.core.errors import EnvironmentFault
from gentax.domains.twx import COOKING, COOKING_DOMAIN, FIRST, FOLDS, MAPREADER, MAPREADER_DOMAIN, Game, numbers
from gentax.domains.twx.simulator import Simulator, State, exits, room_of, tidy

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


ACTION_LIMIT = 200  # characters; no longer string is looked at
REFUSAL = "That cannot be done now."
LOOKS = ("look around", "task")  # of a gold path: what the prompt has said already


class TwxEnv(TextEnv):
    """A game of TextWorldExpress, on the package's own folds; what its games have in common.

    An action is valid if the package lists it, in any case and with any space around and between its words. No other
    ever reaches the package: it is answered with a sentence and changes nothing. The dense reward is the rise of the
    package's score, which ends at 1 with success; a ruined meal ends the episode as a failure.

    `expert` follows the package's gold path without the looks that tell nothing new. It undoes steps aside, and has no
    move after one that cannot be undone (see `GoldPathTracker`).

    Raises (from `reset` and `step`):
        EnvironmentFault: the Java process died or broke; the next `reset` starts another.
        UsageError: there is no Java that runs.
    """

    game: ClassVar[Game]

    def __init__(self, level: str | None = None, **settings: Any) -> None:
        super().__init__(level, **settings)
        self._server: Simulator | None = None
        self._state: State | None = None
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
        try:
            description, state, path = self._start(task)
        except EnvironmentFault:  # it was closed or died since the last episode
            self.close()
            description, state, path = self._start(task)
        self._state = state
        self._tracker = GoldPathTracker(without_idle([action for action in path if action not in LOOKS]))
        self._content = content_of(self.game, description, state.look, path)
        return self.goal_of(" ".join(description.split())), tidy(state.look)

    def _step(self, action: str) -> StepResult:
        server, before = self._running(), self._state
        asked = " ".join(action.split()).lower() if len(action) <= ACTION_LIMIT else ""
        # The package takes its own spelling only: "examine TV stand".
        action = next((offered for offered in before.valid if offered.lower() == asked), "")
        if not action:
            return StepResult(REFUSAL, 0.0, False, False, False)
        try:
            state = self._state = server.step(action)
        except EnvironmentFault:
            self.close()
            raise
        moved = room_of(state.look) != room_of(before.look)
        self._tracker.observe(action, moved)
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

    def content(self) -> str:
        return self._content

    def render(self) -> str:
        """Return the goal, the place, what is carried and the score, for a person."""
        if self._state is None:
            return ""
        place, carried = tidy(self._state.look), tidy(self._state.inventory)
        return f"{self.goal}\n\n{place}\n\n{carried}\n\nScore {self._state.score:.2f}, step {self.steps}"

    def close(self) -> None:
        """Let the game go; the last one to close ends the Java process."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _running(self) -> Simulator:
        if self._server is None:
            raise EnvironmentFault("this environment has no simulator: reset() starts one")
        return self._server

    def _start(self, task: Task) -> tuple[str, State, list[str]]:
        if self._server is None:
            self._server = Simulator()
        number = numbers(self.game.name, task.level, task.split)[task.index]
        return self._server.start_game(
            self.game.name, self.game.specs[task.level].parameters, FIRST[task.split] + number, FOLDS[task.split]
        )


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

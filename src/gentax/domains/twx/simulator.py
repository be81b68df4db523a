"""One game of the package, in a Java process shared by every game and both domains.

Unlike the package's own client this asks one thing a step and starts one process in all, whose memory has a limit.
Games do not disturb each other: each has its own generator, seeded by the task.
"""

from __future__ import annotations

import json
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

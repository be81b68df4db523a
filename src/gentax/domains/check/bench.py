"""The bench an environment is checked on: makes it, plays it, knows where it is and how much time is left."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from gentax.core import ExpertAction, Task, TextEnv
from gentax.domains import make
from gentax.domains.check.result import Effort, Failed

NONSENSE = "xyzzy plugh 17"  # no environment's action
WANDER = 30  # steps of an episode without aim, at most

T = TypeVar("T")
Chooser = Callable[[TextEnv], ExpertAction | None]  # what to do next; None leaves the episode


@dataclass(frozen=True)
class Turn:
    """One step as it was answered."""

    action: str
    thought: str
    observation: str
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


@dataclass(frozen=True)
class Played:
    """One episode, or its beginning."""

    task: Task
    goal: str
    first: str
    turns: tuple[Turn, ...]

    @property
    def over(self) -> bool:
        return bool(self.turns) and (self.turns[-1].terminated or self.turns[-1].truncated)

    @property
    def won(self) -> bool:
        return bool(self.turns) and bool(self.turns[-1].info["success"])

    @property
    def actions(self) -> tuple[str, ...]:
        return tuple(turn.action for turn in self.turns)


class Bench:
    """Where one environment is checked.

    Args:
        name: what `gentax.make` takes.
        level: one of its levels; its default when None.
        effort: how much to do.
        settings: what else `gentax.make` is given.

    Raises:
        UsageError: there is no such environment, level or setting.
    """

    def __init__(self, name: str, level: str | None, effort: Effort, settings: dict[str, Any]) -> None:
        self.name, self.effort, self.settings = name, effort, settings
        self.where = ""  # the task and step that is being played, for whoever reports a failure
        self.rng = random.Random(0)
        self._asked = level
        self._extra: list[TextEnv] = []
        self._seconds = self._until = 0.0
        self.env = self.make()  # the one that lives through all checks
        self._extra.clear()
        self.level = self.env.level

    # Environments.

    def make(self, **changes: Any) -> TextEnv:
        """Make another environment, with some settings changed; closed after the check that asked for it."""
        self.where = ""
        env = make(self.name, changes.pop("level", self._asked), **{**self.settings, **changes})
        self._extra.append(env)
        return env

    def tidy(self) -> None:
        """Close what the last check made."""
        while self._extra:
            self._extra.pop().close()

    def close(self) -> None:
        """Close everything."""
        self.tidy()
        self.env.close()

    # Time.

    def allow(self, seconds: float) -> None:
        """Begin a check that may take so long."""
        self.where = ""
        self._seconds = seconds
        self._until = time.monotonic() + seconds

    def extend(self) -> None:
        """Give the check half of its time again, for a second part."""
        self._until = time.monotonic() + self._seconds / 2

    def late(self) -> bool:
        """Return whether the check has used its time."""
        return time.monotonic() > self._until

    def in_time(self, items: Iterable[T], least: int = 1) -> Iterator[T]:
        """Yield items until the time is up, but `least` of them in any case."""
        for number, item in enumerate(items):
            if number >= least and self.late():
                return
            yield item

    def of(self, done: int, asked: int, what: str) -> str:
        """Say how much was done: "200 tasks", or "31 of 200 tasks (time was up)"."""
        return f"{done} {what}" if done >= asked else f"{done} of {asked} {what} (time was up)"

    # Playing.

    def tasks(self, count: int) -> list[Task]:
        """Return about `count` tasks, the splits taking turns; fewer where there are fewer."""
        splits = self.env.domain.splits
        each = -(-count // len(splits))
        listed = [self.env.tasks(split, min(each, self.env.size(split))) for split in splits]
        if not any(listed):
            raise Failed("it has no tasks")
        longest = max(map(len, listed))
        return [tasks[n] for n in range(longest) for tasks in listed if n < len(tasks)][:count]

    def start(self, env: TextEnv, task: Task) -> tuple[str, str]:
        """Start a task; return its goal and first observation."""
        self.where = f"task {task.id}, reset"
        observation, info = env.reset(options={"task": task})
        return info["goal"], observation

    def step(self, env: TextEnv, action: str, thought: str = "") -> Turn:
        """Do one action."""
        self.where = f"task {env.task.id if env.task else '?'}, step {env.steps + 1}"
        observation, reward, terminated, truncated, info = env.step(action)
        return Turn(action, thought, observation, reward, terminated, truncated, info)

    def play(self, env: TextEnv, task: Task, choose: Chooser, steps: int | None = None) -> Played:
        """Play a task until it is over, `choose` leaves it, or so many steps are done."""
        goal, first = self.start(env, task)
        return Played(task, goal, first, self.play_on(env, choose, steps))

    def play_on(self, env: TextEnv, choose: Chooser, steps: int | None = None) -> tuple[Turn, ...]:
        """Play the present episode on; as `play`."""
        turns: list[Turn] = []
        while steps is None or len(turns) < steps:
            self.where = f"task {env.task.id if env.task else '?'}, step {env.steps + 1}"
            move = choose(env)
            if move is None:
                break
            turns.append(self.step(env, move.action, move.thought))
            if turns[-1].terminated or turns[-1].truncated:
                break
        return tuple(turns)

    @cached_property
    def has_expert(self) -> bool:
        """Whether the environment has an expert, going by the starts of a few tasks."""
        for task in self.tasks(4):
            self.start(self.env, task)
            if self.env.expert() is not None:
                return True
        return False

    def wander(self, env: TextEnv) -> ExpertAction:
        """Choose without aim: something admissible, or else the expert's move; now and then nonsense."""
        if self.rng.random() < 0.1:
            return ExpertAction(NONSENSE)
        listed = None if self.late() else env.admissible()  # some environments take long to list them
        return ExpertAction(self.rng.choice(listed)) if listed else env.expert() or ExpertAction(NONSENSE)


def expert(env: TextEnv) -> ExpertAction | None:
    """Choose what the environment's expert does."""
    return env.expert()

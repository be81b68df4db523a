"""What the checks share: verdicts and reports, and the harness that makes, plays and times one environment."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from itertools import zip_longest
from typing import Any, TypeVar

from gentax.core import ExpertAction, Task, TextEnv
from gentax.core.errors import UsageError
from gentax.core.results import Record
from gentax.domains import make


class Verdict(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


class CheckFailed(Exception):
    """Raised by a check: the environment breaks the contract, and how."""


class NotApplicable(Exception):
    """Raised by a check that cannot run here, and why."""


@dataclass(frozen=True)
class CheckBudget:
    """How much the checks do. Where the seconds run out first, a check does less and says how much it did.

    Raises:
        UsageError: a number that is not positive or not finite.
    """

    tasks: int = 200  # that the expert plays
    starts: int = 4000  # tasks of each split that are compared with the others'
    seconds: float = 180.0  # for all checks together; each has a share, and takes longer where one task does

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < math.inf:
                raise UsageError(f"{name} must be more than 0 and finite, not {value}")


QUICK = CheckBudget(tasks=20, starts=300, seconds=6.0)


@dataclass(frozen=True)
class Result(Record):
    """The result of one check."""

    name: str
    verdict: Verdict
    message: str  # one line; where it failed, the task and the step
    seconds: float


@dataclass(frozen=True)
class CheckReport:
    """The results of all checks of one environment."""

    name: str  # as `gentax.make` takes it
    level: str
    effort: CheckBudget
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Result, ...]:
        """The checks that failed."""
        return tuple(result for result in self.results if result.verdict is Verdict.FAILED)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "environment": self.name,
            "level": self.level,
            "passed": self.passed,
            "effort": asdict(self.effort),
            "checks": [result.to_json() for result in self.results],
        }


NONSENSE = "xyzzy plugh 17"  # no environment's action
RANDOM_STEPS = 30  # steps of a random episode, at most

T = TypeVar("T")
Policy = Callable[[TextEnv], ExpertAction | None]  # what to do next; None leaves the episode


@dataclass(frozen=True)
class Transition:
    """One action and its answer."""

    action: str
    thought: str
    observation: str
    reward: float
    terminated: bool
    truncated: bool
    valid: bool
    success: bool


@dataclass(frozen=True)
class Trajectory:
    """One episode, or its beginning."""

    task: Task
    goal: str
    first: str
    steps: tuple[Transition, ...]

    @property
    def over(self) -> bool:
        return bool(self.steps) and (self.steps[-1].terminated or self.steps[-1].truncated)

    @property
    def won(self) -> bool:
        return bool(self.steps) and self.steps[-1].success


class Harness:
    """One environment under check: makes copies of it, plays them, and keeps the time.

    Args:
        name: what `gentax.make` takes.
        level: one of its levels; its default when None.
        effort: how much to do.
        settings: what else `gentax.make` is given.

    Raises:
        UsageError: there is no such environment, level or setting.
    """

    def __init__(self, name: str, level: str | None, effort: CheckBudget, settings: dict[str, Any]) -> None:
        self.name, self.effort, self.settings = name, effort, settings
        self.location = ""  # the task and step being played, for the message of a failure
        self.rng = random.Random(0)
        self._level = level
        self._extra: list[TextEnv] = []
        self._deadline = 0.0
        self.env = self.make()  # the one that lives through all checks
        self._extra.clear()
        self.level = self.env.level

    def make(self, **changes: Any) -> TextEnv:
        """Make another environment, with some settings changed; closed after the check that asked for it."""
        self.location = ""
        env = make(self.name, self._level, **{**self.settings, **changes})
        self._extra.append(env)
        return env

    def close_extra(self) -> None:
        """Close what the last check made."""
        while self._extra:
            self._extra.pop().close()

    def close(self) -> None:
        """Close everything."""
        self.close_extra()
        self.env.close()

    def start_timer(self, seconds: float) -> None:
        """Begin a check, or a part of one, that may take so long."""
        self.location = ""
        self._deadline = time.monotonic() + seconds

    def within_budget(self, items: Iterable[T], least: int = 1) -> Iterator[T]:
        """Yield items until the time is up, but `least` of them in any case."""
        for number, item in enumerate(items):
            if number >= least and time.monotonic() > self._deadline:
                return
            yield item

    def count(self, done: int, requested: int, what: str) -> str:
        """Say how much was done: "200 tasks", or "31 of 200 tasks (time was up)"."""
        return f"{done} {what}" if done >= requested else f"{done} of {requested} {what} (time was up)"

    def tasks(self, count: int, per_split: int | None = None) -> list[Task]:
        """Return about `count` tasks, the splits taking turns; fewer where there are fewer."""
        splits = self.env.domain.splits
        each = per_split or -(-count // len(splits))
        columns = [self.env.tasks(split, min(each, self.env.size(split))) for split in splits]
        tasks = [task for row in zip_longest(*columns) for task in row if task is not None]
        if not tasks:
            raise CheckFailed("it has no tasks")
        return tasks[:count]

    def start(self, env: TextEnv, task: Task) -> tuple[str, str]:
        """Start a task; return its goal and first observation."""
        self.location = f"task {task.id}, reset"
        observation, info = env.reset(options={"task": task})
        return info["goal"], observation

    def step(self, env: TextEnv, action: str, thought: str = "") -> Transition:
        """Do one action."""
        self.location = f"task {env.task.id if env.task else '?'}, step {env.steps + 1}"
        observation, reward, terminated, truncated, info = env.step(action)
        return Transition(action, thought, observation, reward, terminated, truncated, info["valid"], info["success"])

    def play(self, env: TextEnv, task: Task, policy: Policy, max_steps: int | None = None) -> Trajectory:
        """Play a task until it is over, `policy` leaves it, or so many steps are done."""
        goal, first = self.start(env, task)
        return Trajectory(task, goal, first, self.play_on(env, policy, max_steps))

    def play_on(self, env: TextEnv, policy: Policy, max_steps: int | None = None) -> tuple[Transition, ...]:
        """Play the present episode on; as `play`."""
        steps: list[Transition] = []
        while max_steps is None or len(steps) < max_steps:
            self.location = f"task {env.task.id if env.task else '?'}, step {env.steps + 1}"
            move = policy(env)
            if move is None:
                break
            steps.append(self.step(env, move.action, move.thought))
            if steps[-1].terminated or steps[-1].truncated:
                break
        return tuple(steps)

    def play_mixed(self, env: TextEnv, task: Task, number: int) -> Trajectory:
        """Play as the expert where `number` is even and there is one, else at random."""
        if self.has_expert and number % 2 == 0:
            return self.play(env, task, expert_policy)
        return self.play(env, task, self.random_policy, RANDOM_STEPS)

    @cached_property
    def has_expert(self) -> bool:
        """Whether the environment has an expert, going by the starts of a few tasks."""
        for task in self.tasks(4):
            self.start(self.env, task)
            if self.env.expert() is not None:
                return True
        return False

    @property
    def policy(self) -> Policy:
        """The expert, or random actions where there is none."""
        return expert_policy if self.has_expert else self.random_policy

    @property
    def random_policy(self) -> Policy:
        """Actions drawn with the harness's own generator."""
        return random_policy(self.rng)


def expert_policy(env: TextEnv) -> ExpertAction | None:
    """Choose what the environment's expert does."""
    return env.expert()


def random_policy(rng: random.Random) -> Policy:
    """Return a policy that draws an admissible action (else the expert's); now and then nonsense."""

    def policy(env: TextEnv) -> ExpertAction:
        if rng.random() < 0.1:
            return ExpertAction(NONSENSE)
        admissible = env.admissible()
        return ExpertAction(rng.choice(admissible)) if admissible else env.expert() or ExpertAction(NONSENSE)

    return policy

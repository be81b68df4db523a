"""What the checks share: verdicts and reports, and the harness that makes, plays and times one environment."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property, partial
from itertools import zip_longest
from operator import methodcaller
from typing import Any, NamedTuple, TypeVar

import psutil

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


MESSAGE_LIMIT = 400  # characters of the message of a check
NONSENSE = "xyzzy plugh 17"  # no environment's action
RANDOM_STEPS = 30  # steps of a random episode, at most

T = TypeVar("T")
Policy = Callable[[TextEnv], ExpertAction | None]  # what to do next; None leaves the episode
expert_policy: Policy = methodcaller("expert")


def random_policy(rng: random.Random, env: TextEnv) -> ExpertAction:
    """Draw an admissible action (else the expert's); now and then nonsense."""
    if rng.random() < 0.1:
        return ExpertAction(NONSENSE)
    admissible = env.admissible()
    return ExpertAction(rng.choice(admissible)) if admissible else env.expert() or ExpertAction(NONSENSE)


class Transition(NamedTuple):
    """One action and its answer."""

    action: str
    thought: str
    observation: str
    reward: float
    terminated: bool
    truncated: bool
    valid: bool
    success: bool


class Trajectory(NamedTuple):
    """One episode, or its beginning."""

    task: Task
    start: tuple[str, str]  # goal and first observation
    steps: list[Transition]

    @property
    def won(self) -> bool:
        return bool(self.steps) and self.steps[-1].success


class Resources(NamedTuple):
    """What this process holds at one moment."""

    processes: int  # descendants that run, zombies not counted
    threads: int
    files: int  # open file descriptors

    @classmethod
    def now(cls) -> Resources:
        """Count them."""
        process = psutil.Process()
        running = 0
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                running += child.status() != psutil.STATUS_ZOMBIE
        files = process.num_fds() if hasattr(process, "num_fds") else 0  # Windows has no such count
        return cls(running, process.num_threads(), files)


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
        self.random_policy: Policy = partial(random_policy, self.rng)
        self._deadline = 0.0
        self._done, self._wanted = 0, 0  # of the last loop in `within_budget`
        self.env = make(name, level, **settings)  # the one that lives through all checks
        self.level = self.env.level
        self._extra: list[TextEnv] = []

    def make(self, **changes: Any) -> TextEnv:
        """Make another environment, with some settings changed; closed after the check that asked for it."""
        self.location = ""
        self._extra.append(make(self.name, self.level, **{**self.settings, **changes}))
        return self._extra[-1]

    def run(self, title: str, seconds: float, check: Callable[[Harness], str]) -> Result:
        """Run one check, which may take so long. Whatever the environment raises fails that check alone."""
        started = time.monotonic()
        self.start_timer(seconds)
        try:
            try:
                verdict, message = Verdict.PASSED, check(self)
            finally:
                while self._extra:
                    self._extra.pop().close()
        except NotApplicable as reason:
            verdict, message = Verdict.NOT_APPLICABLE, str(reason)
        except Exception as error:
            what = str(error) if isinstance(error, CheckFailed) else f"raises {type(error).__name__}: {error}"
            verdict, message = Verdict.FAILED, f"{self.location}: {what}" if self.location else what
        # One line that any file takes: an error may quote what cannot be written.
        line = " ".join(message.encode("utf-8", "backslashreplace").decode().split())[:MESSAGE_LIMIT]
        return Result(title, verdict, line, time.monotonic() - started)

    def start_timer(self, seconds: float) -> None:
        """Begin a check, or a part of one, that may take so long."""
        self.location = ""
        self._deadline = time.monotonic() + seconds

    def within_budget(self, items: Iterable[T], least: int = 1) -> Iterator[T]:
        """Yield items until the time is up, but `least` of them in any case; `count` says how many."""
        items = list(items)
        self._done, self._wanted = 0, len(items)
        for item in items:
            if self._done >= least and time.monotonic() > self._deadline:
                return
            yield item
            self._done += 1

    def count(self, what: str) -> str:
        """Say how much `within_budget` gave: "200 tasks", or "31 of 200 tasks (time was up)"."""
        done = f"{self._done} {what}"
        return done if self._done >= self._wanted else f"{self._done} of {self._wanted} {what} (time was up)"

    def tasks(self, count: int) -> list[Task]:
        """Return `count` tasks, the splits taking turns; fewer where a split has fewer."""
        splits = self.env.domain.splits
        each = -(-count // len(splits))
        columns = [self.env.tasks(split, min(each, self.env.size(split))) for split in splits]
        tasks = [task for row in zip_longest(*columns) for task in row if task is not None]
        if not tasks:
            raise CheckFailed("it has no tasks")
        return tasks[:count]

    def sample(self, most: int, least: int = 1) -> Iterator[Task]:
        """Yield tasks as `within_budget` does: `most` of them, but no more than the effort's."""
        return self.within_budget(self.tasks(min(most, self.effort.tasks)), least)

    def start(self, env: TextEnv, task: Task) -> tuple[str, str]:
        """Start a task; return its goal and first observation."""
        self.location = f"task {task.id}, reset"
        observation, info = env.reset(options={"task": task})
        return info["goal"], observation

    def step(self, env: TextEnv, action: str, thought: str = "") -> Transition:
        """Do one action."""
        self._locate_step(env)
        observation, reward, terminated, truncated, info = env.step(action)
        return Transition(action, thought, observation, reward, terminated, truncated, info["valid"], info["success"])

    def play(self, env: TextEnv, task: Task, policy: Policy, max_steps: int | None = None) -> Trajectory:
        """Play a task until it is over, `policy` leaves it, or so many steps are done."""
        return Trajectory(task, self.start(env, task), self.play_on(env, policy, max_steps))

    def play_on(self, env: TextEnv, policy: Policy, max_steps: int | None = None) -> list[Transition]:
        """Play the present episode on; as `play`."""
        steps: list[Transition] = []
        while max_steps is None or len(steps) < max_steps:
            self._locate_step(env)
            move = policy(env)
            if move is None:
                break
            steps.append(self.step(env, move.action, move.thought))
            if steps[-1].terminated or steps[-1].truncated:
                break
        return steps

    def steps_of(self, trajectory: Trajectory) -> Iterator[Transition]:
        """Yield the steps of an episode that was played, with `location` at each."""
        for number, step in enumerate(trajectory.steps, 1):
            self.location = f"task {trajectory.task.id}, step {number}"
            yield step

    def play_mixed(self, env: TextEnv, task: Task, number: int) -> Trajectory:
        """Play as the expert where `number` is even and there is one, else at random."""
        if self.has_expert and number % 2 == 0:
            return self.play(env, task, expert_policy)
        return self.play(env, task, self.random_policy, RANDOM_STEPS)

    def _locate_step(self, env: TextEnv) -> None:
        self.location = f"task {env.task.id if env.task else '?'}, step {env.steps + 1}"

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

"""Tasks, and the interface of every domain: a `gymnasium.Env` with text in and text out, played on named tasks.

A domain is a `Domain` record (what can be said without loading anything) and a subclass of `TextEnv` (what plays).
A subclass writes `_reset_task` and `_step`, and where it can `admissible`, `expert` and `content`; the base class does
the rest: tasks, horizon, Gymnasium's conventions.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import gymnasium
from gymnasium.spaces import Text

from gentax.core.errors import UsageError, unknown

SPLITS = ("train", "validation", "test")
_EIGHTHS = ("train",) * 5 + ("validation",) + ("test",) * 2  # twice as many to test on as to tune on


@dataclass(frozen=True, slots=True, order=True)
class Task:
    """One task of a domain. `index` counts from 0 within (domain, level, split)."""

    domain: str
    level: str
    split: str
    index: int

    @property
    def id(self) -> str:
        """The task as one word, for example `sokoban/6x6/test/17`."""
        return f"{self.domain}/{self.level}/{self.split}/{self.index}"

    @property
    def seed(self) -> int:
        """A 64-bit seed that depends on the task alone, so that it is the same in every process and version."""
        return stable_seed(self.id)

    @classmethod
    def parse(cls, id: str) -> Task:
        """Read a task back from its `id`. Raises ValueError when `id` is not of that form."""
        domain, level, split, index = id.rsplit("/", 3)  # the name of another library's environment may hold slashes
        return cls(domain, level, split, int(index))


def stable_seed(*parts: object) -> int:
    """Hash `parts` to 64 bits, alike on every machine (unlike `hash`)."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def content_hash(*parts: object) -> str:
    """Hash what a task is made of (a room, a product, a set of recipes) to 16 hexadecimal digits."""
    return f"{stable_seed(*parts):016x}"


def split_of(content: str) -> str:
    """Return the split that a content (`content_hash`) belongs to: 5/8 train, 1/8 validation, 1/4 test.

    A domain that asks this of every task has splits that share no content, whatever level or seed a task has.
    """
    return _EIGHTHS[int(content, 16) % 8]


class AnyText(Text):
    """Every string up to a length. Gymnasium's own `Text` allows only the characters it is given."""

    def __init__(self, max_length: int = 1 << 20) -> None:
        super().__init__(min_length=0, max_length=max_length)

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length


@dataclass(frozen=True)
class Level:
    """A difficulty of a domain."""

    horizon: int  # steps after which an episode is cut off
    about: str  # one line for a person


@dataclass(frozen=True)
class Domain:
    """What is known of a domain before any of it is loaded."""

    name: str
    entry: str  # "module:Class" of its TextEnv
    about: str  # one line for a person
    rules: str  # the paragraph every prompt begins with
    levels: Mapping[str, Level]
    default_level: str
    licence: str
    origin: str
    splits: tuple[str, ...] = SPLITS
    target_only: bool = False  # never trained on
    requires: tuple[str, ...] = ()  # modules it needs beyond the core
    enable: str = ""  # the one command that installs them
    threads: int = 1  # episodes worth stepping at once (more than 1 where the work is in another process)
    copies: int = 256  # environments open at once, at most
    open_levels: bool = False  # the environment reads level names that are not in `levels`


class ExpertAction(NamedTuple):
    """What an expert does next, and why, in a short sentence."""

    action: str
    thought: str = ""


class StepResult(NamedTuple):
    """The outcome of one action: what `TextEnv.step` turns into Gymnasium's five values."""

    observation: str
    reward: float
    terminated: bool
    success: bool
    valid: bool  # the environment accepted the action


class TextEnv(gymnasium.Env[str, str]):
    """A text environment with named tasks.

    `reset(options={"index": i, "split": s})` or `reset(options={"task": task})` starts that task; `reset(seed=n)`
    starts one drawn from the environment's own split with its own generator. `info` holds `task`, `goal` and `content`
    after a reset, and `valid` and `success` after a step.

    Args:
        level: one of the domain's levels; the domain's default when None.
        split: where `reset` draws tasks from when no index is given.
        reward: "sparse" (1 on success, else 0) or "dense" (the domain's own progress signal, summing to at most 1).
        horizon: steps after which an episode is truncated; the level's own when None.

    Raises:
        UsageError: an unknown level, split, reward or option, or an index outside the split.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"]}  # type: ignore[misc]  # Gymnasium: of an instance
    render_mode = "ansi"
    observation_space = AnyText()
    action_space = AnyText()
    domain: Domain  # set by the subclass

    def __init__(
        self, level: str | None = None, split: str = "train", reward: str = "sparse", horizon: int | None = None
    ) -> None:
        domain = self.domain
        self.level = domain.default_level if level is None else level
        if self.level not in domain.levels and not domain.open_levels:
            raise unknown(f"level of {domain.name}", self.level, domain.levels)
        if split not in domain.splits:
            raise unknown(f"split of {domain.name}", split, domain.splits)
        if reward not in ("sparse", "dense"):
            raise unknown("reward", reward, ("sparse", "dense"))
        if horizon is not None and horizon < 1:
            raise UsageError(f"the horizon must be at least 1 step, not {horizon}")
        self.split = split
        self.reward = reward
        self.horizon = self.level_horizon() if horizon is None else horizon
        self.task: Task | None = None
        self.goal = ""
        self.observation = ""
        self.steps = 0
        self._content: str | None = None
        self._over = True

    # What a domain writes.

    @abstractmethod
    def _reset_task(self, task: Task) -> tuple[str, str]:
        """Start `task`; return its goal and its first observation."""

    @abstractmethod
    def _step(self, action: str) -> StepResult:
        """Do `action`, which may be any string at all."""

    def admissible(self) -> list[str] | None:
        """Return every action the environment would accept now, or None where it cannot say."""
        return None

    def expert(self) -> ExpertAction | None:
        """Return the expert's next move from the present state, or None when it has none."""
        return None

    def size(self, split: str) -> int:
        """Return how many tasks the split has at this level."""
        raise NotImplementedError

    def tasks(self, split: str, count: int) -> list[Task]:
        """Return the first `count` tasks of the split. A domain orders its tasks so that any prefix is a fair sample.

        Raises:
            UsageError: when the split holds fewer.
        """
        size = self._size_of(split)
        if count > size:
            raise UsageError(f"{self.domain.name} at level {self.level!r} has {size} {split} tasks, not {count}")
        return [Task(self.domain.name, self.level, split, index) for index in range(count)]

    def content(self) -> str | None:
        """Return a hash (`content_hash`) of what the task just begun is made of; None where that cannot be said.

        A room, a product, a set of recipes: what one would have to see in training to know the task already. Splits
        must not share any. Tasks with the same content are one cluster, since a policy does alike on them. It is what
        `_reset_task` put into `_content`, unless a domain overrides this.
        """
        return self._content

    def content_of(self, task: Task) -> str | None:
        """Return `content` of any task; starts it, unless the domain knows better."""
        self.reset(options={"task": task})
        return self.content()

    def caveats(self) -> list[str]:
        """Say what nobody can claim of this environment, a sentence each: a guessed success, a horizon not its own."""
        return []

    def fingerprint(self) -> str:
        """Return what tells the task just begun from others; asked right after a reset, to see what splits share.

        Its goal and first observation. A domain whose observation shows only part of its world gives the whole start.
        """
        return f"{self.goal}\n{self.observation}"

    def level_horizon(self) -> int:
        """Return the horizon of `self.level`; overridden by domains with open levels."""
        return self.domain.levels[self.level].horizon

    # Gymnasium's side.

    @property
    def unwrapped(self) -> TextEnv:
        return self

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.task = self._pick(options or {})
        self._over = True  # until the start has succeeded
        self.goal, self.observation = self._reset_task(self.task)
        self.steps = 0
        self._over = False
        return self.observation, {"task": self.task, "goal": self.goal, "content": self.content()}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self._over:
            raise gymnasium.error.ResetNeeded("this episode is over: call reset() before step()")
        result = self._step(action)
        self.steps += 1
        self.observation = result.observation
        truncated = not result.terminated and self.steps >= self.horizon
        self._over = result.terminated or truncated
        info = {"valid": result.valid, "success": result.success}
        return result.observation, result.reward, result.terminated, truncated, info

    def render(self) -> str:
        """Return the present state as text for a person; the observation unless a domain has something nicer."""
        return self.observation

    def _pick(self, options: dict[str, Any]) -> Task:
        extra = set(options) - {"task", "index", "split"}
        if extra:
            raise unknown("reset option", sorted(extra)[0], ("task", "index", "split"))
        task = options.get("task")
        if task is None:
            split = options.get("split", self.split)
            if split not in self.domain.splits:
                raise unknown(f"split of {self.domain.name}", split, self.domain.splits)
            index = options.get("index")
            if index is None:
                index = int(self.np_random.integers(self._size_of(split)))
            task = Task(self.domain.name, self.level, split, int(index))
        if task.domain != self.domain.name or task.level != self.level:
            raise UsageError(f"task {task.id} is not one of {self.domain.name} at level {self.level}")
        size = self._size_of(task.split)
        if not 0 <= task.index < size:
            raise UsageError(f"task {task.id}: the {task.split} split has indices 0 to {size - 1}")
        return task

    def _size_of(self, split: str) -> int:
        """Return how many tasks a split has. Raises UsageError where it has none."""
        if not (size := self.size(split)):
            raise UsageError(self._no_tasks(split))
        return size

    def _no_tasks(self, split: str) -> str:
        """Say that a split is empty; a domain that knows why says so."""
        return f"{self.domain.name} at level {self.level!r} has no {split} tasks"

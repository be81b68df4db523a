"""The curriculum: which tasks are played at each step, and the pools of tasks it samples from.

A step's tasks are a function of the step's number and of the metrics logged before it. Nothing else is remembered, so
a run that is continued goes on as it would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gentax.core import Task, UsageError, stable_seed
from gentax.domains import make
from gentax.domains.registry import parse_domain, why_not_untouched
from gentax.training.config import TrainConfig

TRAIN_TASKS = 4096  # of the train split that are played, in each domain; all where the split has fewer
VALIDATION_TASKS = 64  # of the validation split that are played, in each domain trained on
WARMUP_STEPS = 5  # over which the learning rate rises from 0


@dataclass(frozen=True)
class TaskPool:
    """One part of a mixture: a domain at a level."""

    name: str  # as the recipe has it: `domain` or `domain:level`
    train: tuple[Task, ...]
    validation: tuple[Task, ...]  # none where the domain has no such split


def task_pool(name: str, config: TrainConfig) -> TaskPool:
    """Return the tasks of `domain` or `domain:level`.

    Raises:
        UsageError: a name or a level that does not exist, or validation tasks that decide and may be train tasks.
    """
    domain, level = parse_domain(name)
    env = make(domain, level, horizon=config.rollout.horizon)
    try:
        if config.forgetting.interpolate is not None and (why := why_not_untouched(env, "validation")):
            raise UsageError(
                f"recipe: forgetting.interpolate chooses by validation tasks, and {name} {why}; choose a share by hand "
                "and use `gentax merge --method interpolate`"
            )
        train = env.tasks("train", min(TRAIN_TASKS, env.size("train")))
        validation: list[Task] = []
        if "validation" in env.domain.splits:
            validation = env.tasks("validation", min(VALIDATION_TASKS, env.size("validation")))
        return TaskPool(name, tuple(train), tuple(validation))
    finally:
        env.close()


Metrics = dict[str, float]
RECENT = 20  # steps whose success counts for adaptive sampling
UNKNOWN = 0.5  # success of what was not played yet, for adaptive sampling


class Curriculum:
    """Which tasks are played at each step, and when to validate and to save.

    Args:
        config: every setting.

    Raises:
        UsageError: a domain or level that does not exist.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.phases = config.phases()
        self.steps = config.updates
        self._ends = np.cumsum([phase.max_steps for phase in self.phases])

    @cached_property
    def pools(self) -> Mapping[str, TaskPool]:
        """The tasks of every part of every phase; of what is fine-tuned on, where that is all."""
        return {name: task_pool(name, self.config) for name in self.config.trained or self.config.sft_mixture}

    def tasks(self, step: int, rows: Sequence[Metrics]) -> dict[str, tuple[Task, ...]]:
        """Return the tasks of the groups at `step`, counted from 1, after the rows of the steps before it, by part."""
        rng = np.random.default_rng(stable_seed(self.config.seed, "tasks", step))
        phase = int(np.searchsorted(self._ends, step))
        counts = split_groups(self._mix(phase, rows), self.config.tasks_per_step, float(rng.random()))
        tasks = {}
        for name, count in counts.items():
            train = self.pools[name].train
            sampled = rng.choice(len(train), size=min(count, len(train)), replace=False)
            tasks[name] = tuple(train[i] for i in sampled)
        return tasks

    def learning_rate(self, step: int) -> float:
        """Return the learning rate at `step` over its peak: up on a line while warming up, then down to 0 on one."""
        return max(0.0, min(step / WARMUP_STEPS, 1 - (step - 1) / self.steps, 1.0))

    def validates(self, step: int) -> bool:
        """Return whether validation tasks are played after `step`: regularly, and after the first and the last."""
        every = self.config.eval_steps
        return bool(every) and (step % every == 0 or step in (1, self.steps))

    def ends(self, step: int) -> bool:
        """Return whether a phase ends with `step`."""
        return step in self._ends

    def saves(self, step: int) -> bool:
        """Return whether a checkpoint is due after `step`."""
        return self.ends(step) or step % self.config.save_steps == 0

    def _mix(self, phase: int, rows: Sequence[Metrics]) -> dict[str, float]:
        """Return the share of each part at this point, summing to 1."""
        curriculum = self.config.curriculum
        mix = self.phases[phase].shares
        if phase and curriculum.replay:
            before = [earlier.shares for earlier in self.phases[:phase]]
            mix = {name: share * (1 - curriculum.replay) for name, share in mix.items()}
            for name, share in [item for shares in before for item in shares.items()]:
                mix[name] = mix.get(name, 0.0) + share * curriculum.replay / len(before)
        if curriculum.adaptive:
            # A little is left to what is always or never solved, or it would never be played again.
            mix = {name: share * (success_variance(name, rows) + 0.02) for name, share in mix.items()}
        total = sum(mix.values())
        return {name: share / total for name, share in mix.items()}


def success_variance(name: str, rows: Sequence[Metrics]) -> float:
    """Return p (1 − p) of a part's success over the last steps that played it: the variance of its reward."""
    seen = [row[f"success/{name}"] for row in rows if f"success/{name}" in row][-RECENT:]
    p = float(np.mean(seen)) if seen else UNKNOWN
    return p * (1 - p)


def split_groups(mix: Mapping[str, float], count: int, offset: float) -> dict[str, int]:
    """Split `count` groups by share; each part gets its share rounded up or down, at random and without bias.

    Args:
        mix: shares that sum to 1.
        count: of groups.
        offset: a uniform number in [0, 1): systematic sampling.
    """
    bounds = np.floor(np.cumsum(list(mix.values())) * count + offset + 1e-9).astype(int)
    sizes = np.diff(np.concatenate([[0], bounds]))
    sizes[-1] += count - sizes.sum()
    return {name: int(size) for name, size in zip(mix, sizes, strict=True) if size > 0}

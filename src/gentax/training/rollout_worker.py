"""Rollouts of a training run: which tasks a step plays (the curriculum), its episodes and rewards, validation, metrics.

A step's tasks are a function of its number and of the metrics logged before it, so a run that is continued goes on as
it would have. The environments and the judge are held while the run lasts. Every trainer plays this way.

Keys of a step's metrics: step; success, return (the environment's), reward (what was learned from), length, each a mean
over episodes; invalid, truncated and cut_prompts (shares of steps); errors; tokens, tokens_per_s; play_s, learn_s. In a
mixture also success/PART for each part played. `policy_gradient.update` and forgetting methods add their own, and the
run validation_success, elapsed_s and left_s.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gentax.core import Episode, Outcome, Task, UsageError, stable_seed
from gentax.domains import make
from gentax.domains.registry import parse_domain, why_not_untouched
from gentax.policies.load import load_policy
from gentax.policies.local import LocalPolicy
from gentax.policies.protocol import Policy
from gentax.rollouts import EnvPool, rollout
from gentax.training.config import TrainConfig
from gentax.training.distributed import World
from gentax.training.rewards import Judge, rewards_of
from gentax.training.run_folder import Metrics

TRAIN_TASKS = 4096  # of the train split that are played, in each domain; all where the split has fewer
VALIDATION_TASKS = 64  # of the validation split that are played, in each domain trained on
WARMUP_STEPS = 5  # over which the learning rate rises from 0
RECENT = 20  # steps whose success counts for adaptive sampling
UNKNOWN = 0.5  # success of what was not played yet, for adaptive sampling


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
        if config.forgetting.merge == "interpolate" and (why := why_not_untouched(env, "validation")):
            raise UsageError(
                f"recipe: forgetting.merge: interpolate chooses by validation tasks, and {name} {why}; choose a share "
                "by hand and use `gentax merge --method interpolate`"
            )
        train = env.tasks("train", min(TRAIN_TASKS, env.size("train")))
        validation: list[Task] = []
        if "validation" in env.domain.splits:
            validation = env.tasks("validation", min(VALIDATION_TASKS, env.size("validation")))
        return TaskPool(name, tuple(train), tuple(validation))
    finally:
        env.close()


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
        mix = self.phases[phase].shares
        if self.config.curriculum.adaptive:
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


@dataclass(frozen=True)
class RolloutBatch:
    """The episodes that this process played for one step."""

    tasks: Mapping[str, Sequence[Task]]  # of all processes, by part
    episodes: Sequence[Episode]
    rewards: list[np.ndarray]  # of each episode, float64, shape (steps,)
    unread_scores: int  # answers of the judge that were no scores
    seconds: float
    finished_at: float  # by the monotonic clock


class RolloutWorker:
    """Plays the episodes of a run; a context, since environments stay open from the first step to the last."""

    def __init__(
        self, config: TrainConfig, curriculum: Curriculum, world: World, device: str, parallel: int | None = None
    ) -> None:
        self.config, self.curriculum, self.world, self.parallel = config, curriculum, world, parallel
        judge = config.reward.judge
        self.judge = None if judge is None else Judge(load_policy(judge, config.options(device)))
        self.validation = config.validation_rollout()
        self._stack = ExitStack()

    def __enter__(self) -> RolloutWorker:
        training, validation = self.config.rollout, self.validation
        self._envs = self._validation_envs = self._stack.enter_context(EnvPool(training))
        if training.wrap or training.reward != validation.reward:
            self._validation_envs = self._stack.enter_context(EnvPool(validation))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rollout(self, policy: LocalPolicy, step: int, rows: Sequence[Metrics]) -> RolloutBatch:
        """Play this process's groups of `step`, after the metrics of the steps before it."""
        config, world, began = self.config, self.world, time.monotonic()
        tasks = self.curriculum.tasks(step, rows)
        every_task = [task for part in tasks.values() for task in part]
        episodes = rollout(
            policy,
            every_task[world.rank :: world.size],  # a group is played by one process
            config=config.rollout,
            samples=config.num_generations,
            seed=stable_seed(config.seed, "play", step),
            parallel=self.parallel,
            pool=self._envs,
        )
        policy.release_memory()
        scores, unread = self.judge.scores(episodes) if self.judge else (None, 0)
        if self.judge is not None and isinstance(self.judge.policy, LocalPolicy):
            self.judge.policy.release_memory()
        rewards = rewards_of(episodes, config.reward, scores)
        now = time.monotonic()
        return RolloutBatch(tasks, episodes, rewards, unread, now - began, now)

    def validate(self, policy: Policy) -> Metrics:
        """Play the validation tasks, each process its share.

        Returns:
            `validation_success`, the mean over the parts, and with several parts `validation_success/PART` of each.
            Episodes that ended in an error are in no mean, and a part of nothing else has none.
        """
        pools, world = list(self.curriculum.pools.values()), self.world
        tasks = [task for pool in pools for task in pool.validation[world.rank :: world.size]]
        part = {task: pool.name for pool in pools for task in pool.validation}
        solved, played = Counter[str](), Counter[str]()
        for episode in rollout(
            policy, tasks, config=self.validation, pool=self._validation_envs, parallel=self.parallel
        ):
            if episode.outcome is not Outcome.ERROR:
                solved[part[episode.task]] += episode.success
                played[part[episode.task]] += 1
        solved, played = self._total(solved), self._total(played)
        rates = {pool.name: solved[pool.name] / played[pool.name] for pool in pools if played[pool.name]}
        metrics = {"validation_success": sum(rates.values()) / len(rates)} if rates else {}
        return metrics | ({f"validation_success/{n}": rate for n, rate in rates.items()} if len(pools) > 1 else {})

    def metrics(self, step: int, batch: RolloutBatch, learned: Mapping[str, float]) -> Metrics:
        """Return the metrics of a step, of all processes together: those of its rollout, and `learned`, those of the
        update on it."""
        seconds = {"play_s": batch.seconds, "learn_s": time.monotonic() - batch.finished_at}
        part = {task: name for name, tasks in batch.tasks.items() for task in tasks}
        own = Counter[str]()
        for episode, reward in zip(batch.episodes, batch.rewards, strict=True):
            if episode.outcome is Outcome.ERROR:
                own["errors"] += 1
            else:
                own.update(_episode_counts(episode, float(reward.sum()), part[episode.task]))
        count = self._total(own)
        episodes, steps = max(1, count["episodes"]), max(1, count["length"])
        metrics: Metrics = {"step": step}
        metrics |= {key: count[key] / episodes for key in ("success", "return", "reward", "length")}
        metrics |= {key: count[key] / steps for key in ("invalid", "truncated", "cut_prompts")}
        metrics |= {"errors": count["errors"], "tokens": count["tokens"]}
        metrics["tokens_per_s"] = count["tokens"] / max(1e-9, sum(seconds.values()))
        if len(self.curriculum.pools) > 1:
            for name in batch.tasks:
                if count[f"episodes/{name}"]:
                    metrics[f"success/{name}"] = count[f"success/{name}"] / count[f"episodes/{name}"]
        unread = {"unread_scores": self.world.sum(batch.unread_scores)} if self.judge else {}
        return metrics | seconds | dict(learned) | unread

    def _total(self, own: Counter[str]) -> Counter[str]:
        """Return the counts of all processes together."""
        total = Counter[str]()
        for counts in self.world.gather(dict(own)):
            total.update(counts)
        return total


def _episode_counts(episode: Episode, reward: float, name: str) -> Metrics:
    return {
        "episodes": 1,
        f"episodes/{name}": 1,
        "success": float(episode.success),
        f"success/{name}": float(episode.success),
        "return": episode.ret,
        "reward": reward,
        "length": episode.length,
        "invalid": episode.invalid,
        "truncated": episode.truncated,
        "cut_prompts": episode.cut_prompts,
        "tokens": sum(len(sequence) for sequence in episode.sequences()),
    }

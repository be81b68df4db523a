"""Rollouts of a training run: the episodes of a step and their rewards, validation, and the metrics of a step.

The environments and the judge are held while the run lasts. Every trainer plays this
way, whoever optimizes.

Keys of a step's metrics: step; success, return (the environment's), reward (what was learned from), length, each a mean
over episodes; invalid, truncated and cut_prompts (shares of steps); errors; tokens, tokens_per_s; play_s, learn_s. In a
mixture also success/PART for each part played. `policy_gradient.update` and forgetting methods add their own, and the
run validation_success, elapsed_s and left_s.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from gentax.core import Episode, Outcome, stable_seed
from gentax.models.requests import ModelOptions
from gentax.policies.load import load_policy
from gentax.policies.local import LocalPolicy
from gentax.policies.protocol import Policy
from gentax.rollouts import EnvPool, RolloutConfig, rollout
from gentax.training.config import TrainConfig
from gentax.training.curriculum import Curriculum, CurriculumStep, TaskPool
from gentax.training.distributed import World
from gentax.training.rewards import Judge, rewards_of
from gentax.training.run_folder import Metrics


@dataclass(frozen=True)
class RolloutBatch:
    """The episodes that this process played for one step."""

    plan: CurriculumStep
    episodes: Sequence[Episode]
    rewards: list[np.ndarray]  # of each episode, float64, shape (steps,)
    unread_scores: int  # answers of the judge that were no scores
    seconds: float
    finished_at: float  # by the monotonic clock


class RolloutWorker:
    """Plays the episodes of a run; a context, since environments stay open from the first step to the last."""

    def __init__(self, config: TrainConfig, curriculum: Curriculum, world: World, device: str) -> None:
        self.config, self.curriculum, self.world = config, curriculum, world
        judge = config.reward.judge
        self.judge = None if judge is None else Judge(load_policy(judge, ModelOptions(device, config.dtype)))
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
        plan = self.curriculum.plan(step, rows)
        tasks = plan.tasks[world.rank :: world.size]  # a group is played by one process
        episodes = rollout(
            policy,
            tasks,
            config=config.rollout,
            samples=config.num_generations,
            seed=stable_seed(config.seed, "play", step),
            parallel=config.parallel,
            pool=self._envs,
        )
        policy.release_memory()
        scores, unread = self.judge.scores(episodes) if self.judge else (None, 0)
        if self.judge is not None and isinstance(self.judge.policy, LocalPolicy):
            self.judge.policy.release_memory()
        rewards = rewards_of(episodes, config.reward, scores)
        now = time.monotonic()
        return RolloutBatch(plan, episodes, rewards, unread, now - began, now)

    def validate(self, policy: Policy) -> Metrics:
        """Play the validation tasks; return their success (see `validate`)."""
        pools, parallel = self.curriculum.pools.values(), self.config.parallel
        return validate(policy, pools, self.validation, self._validation_envs, self.world, parallel)

    def metrics(self, step: int, batch: RolloutBatch, learned: Mapping[str, float]) -> Metrics:
        """Return the metrics of a step: those of its rollout, and `learned`, those of the update on it."""
        seconds = {"play_s": batch.seconds, "learn_s": time.monotonic() - batch.finished_at}
        mixture = len(self.curriculum.pools) > 1
        metrics = {"step": step, **rollout_metrics(batch, seconds, self.world, mixture), **learned}
        return metrics | ({"unread_scores": self.world.sum(batch.unread_scores)} if self.judge else {})


def validate(
    policy: Policy,
    pools: Iterable[TaskPool],
    config: RolloutConfig,
    envs: EnvPool,
    world: World,
    parallel: int | None = None,
) -> Metrics:
    """Return `validation_success`, the mean over the parts, and with several parts `validation_success/PART` of each.

    Episodes that ended in an error are in no mean, and a part without others has none. Every process plays its share.
    """
    pools = list(pools)
    tasks = [task for pool in pools for task in pool.validation[world.rank :: world.size]]
    counts = {pool.name: [0, 0] for pool in pools}  # successes, episodes
    part = {task: pool.name for pool in pools for task in pool.validation}
    for episode in rollout(policy, tasks, config=config, pool=envs, parallel=parallel):
        if episode.outcome is not Outcome.ERROR:
            counts[part[episode.task]][0] += episode.success
            counts[part[episode.task]][1] += 1
    gathered = world.gather(counts)
    rates = {}
    for name in counts:
        solved, played = (sum(counts[name][k] for counts in gathered) for k in (0, 1))
        if played:
            rates[name] = solved / played
    metrics = {"validation_success": sum(rates.values()) / len(rates)} if rates else {}
    return metrics | ({f"validation_success/{name}": rate for name, rate in rates.items()} if len(counts) > 1 else {})


def rollout_metrics(batch: RolloutBatch, seconds: Mapping[str, float], world: World, mixture: bool) -> Metrics:
    """Return what a step's episodes were like, of all processes together; `seconds` are `play_s` and `learn_s`."""
    part = {task: name for name, tasks in batch.plan.parts for task in tasks}
    own = Counter[str]()
    for episode, reward in zip(batch.episodes, batch.rewards, strict=True):
        if episode.outcome is Outcome.ERROR:
            own["errors"] += 1
        else:
            own.update(_episode_counts(episode, float(reward.sum()), part[episode.task]))
    count: Counter[str] = Counter()
    for counts in world.gather(dict(own)):
        count.update(counts)
    episodes, steps = max(1, count["episodes"]), max(1, count["length"])
    metrics = {key: count[key] / episodes for key in ("success", "return", "reward", "length")}
    metrics |= {key: count[key] / steps for key in ("invalid", "truncated", "cut_prompts")}
    metrics |= {"errors": count["errors"], "tokens": count["tokens"]}
    metrics["tokens_per_s"] = count["tokens"] / max(1e-9, sum(seconds.values()))
    if mixture:
        for name, _ in batch.plan.parts:
            if count[f"episodes/{name}"]:
                metrics[f"success/{name}"] = count[f"success/{name}"] / count[f"episodes/{name}"]
    return metrics | dict(seconds)


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

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
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from gentax.core import Episode, Outcome, Task, stable_seed
from gentax.models.options import ModelOptions
from gentax.policies.load import load_policy
from gentax.policies.local import LocalPolicy
from gentax.policies.protocol import Policy
from gentax.rollouts import EnvPool, rollout
from gentax.training.config import TrainConfig
from gentax.training.curriculum import Curriculum
from gentax.training.distributed import World
from gentax.training.rewards import Judge, rewards_of
from gentax.training.run_folder import Metrics


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
        tasks = self.curriculum.tasks(step, rows)
        every_task = [task for part in tasks.values() for task in part]
        episodes = rollout(
            policy,
            every_task[world.rank :: world.size],  # a group is played by one process
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
            policy, tasks, config=self.validation, pool=self._validation_envs, parallel=self.config.parallel
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

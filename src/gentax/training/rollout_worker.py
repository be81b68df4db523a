"""Rollouts of a training run: the episodes of a step and their rewards, validation, and the metrics of a step.

The environments, the judge and the lengths of the expert's plans are held while the run lasts. Every trainer plays this
way, whoever optimises.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gentax.core import Episode, Outcome, Task, stable_seed
from gentax.models.requests import ModelOptions
from gentax.policies.load import load_policy
from gentax.policies.local import LocalPolicy
from gentax.policies.protocol import Policy
from gentax.rollouts import EnvPool, RolloutConfig, rollout
from gentax.training.config import TrainConfig
from gentax.training.curriculum import Curriculum, CurriculumStep, TaskPool
from gentax.training.distributed import World
from gentax.training.expert_guidance import PLANNED, Guided, expert_prefixes, plan_lengths
from gentax.training.rewards import Judge, rewards_of
from gentax.training.run_folder import Row


@dataclass(frozen=True)
class Played:
    """What this process played of a lesson."""

    lesson: CurriculumStep
    episodes: Sequence[Episode]
    rewards: list[np.ndarray]  # of each episode, float64, shape (steps,)
    unread: int  # answers of the judge that were no scores
    seconds: float
    at: float  # when it was done, by the monotonic clock


class RolloutWorker:
    """A run's playing, from the first step to the last; a context, since environments are open meanwhile.

    Args:
        config: every setting.
        course: its schedule.
        world: the processes that share the playing.
        device: where a judge's model is.
    """

    def __init__(self, config: TrainConfig, course: Curriculum, world: World, device: str) -> None:
        self.config, self.course, self.world = config, course, world
        judge = config.reward.judge
        self.judge = None if judge is None else Judge(load_policy(judge, ModelOptions(device, config.dtype)))
        self.looking = config.looking()
        self._stack = ExitStack()

    def __enter__(self) -> RolloutWorker:
        rollout_config, looking = self.config.rollout, self.looking
        self._envs = self._look_envs = self._stack.enter_context(EnvPool(rollout_config))
        if (looking.wrap, looking.reward, looking.horizon) != (
            rollout_config.wrap,
            rollout_config.reward,
            rollout_config.horizon,
        ):
            self._look_envs = self._stack.enter_context(EnvPool(looking))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def play(self, policy: LocalPolicy, step: int, rows: Sequence[Row]) -> Played:
        """Play this process's groups of the lesson of `step`, after the rows of the steps before it."""
        config, world, began = self.config, self.world, time.monotonic()
        lesson = self.course.lesson(step, rows)
        tasks = lesson.tasks[world.rank :: world.size]  # a group is played by one process
        who: Policy = policy
        if lesson.hints or lesson.expert_prefix:
            seed = stable_seed(config.seed, "guide", step)
            starts = expert_prefixes(tasks, lesson.expert_prefix, self._plans, seed, lesson.horizon)
            who = Guided(policy, lesson.hints, starts, seed)
        episodes = rollout(
            who,
            tasks,
            config=lesson.rollout,
            samples=config.num_generations,
            seed=stable_seed(config.seed, "play", step),
            parallel=config.parallel,
            pool=self._envs,
            horizon=lesson.horizon,
        )
        policy.release_memory()
        scores, unread = self.judge.scores(episodes) if self.judge else (None, 0)
        if self.judge is not None and isinstance(self.judge.policy, LocalPolicy):
            self.judge.policy.release_memory()
        rewards = rewards_of(episodes, config.reward, config.exploration, scores)
        done = time.monotonic()
        return Played(lesson, episodes, rewards, unread, done - began, done)

    @cached_property
    def _plans(self) -> Mapping[tuple[str, str], float]:
        """How long the expert's plans are, by (domain, level)."""
        some = [task for ground in self.course.grounds.values() for task in ground.learn[:PLANNED]]
        return plan_lengths(some, self.config.rollout, self._envs)

    def look(self, policy: Policy) -> Row:
        """Play the validation tasks; see `look.look`."""
        grounds, parallel = self.course.grounds.values(), self.config.parallel
        return look(policy, grounds, self.looking, self._look_envs, self.world, parallel)

    def row(self, step: int, played: Played, learned: Mapping[str, float]) -> Row:
        """Return the row of a step that was just learned from: what was played, and `learned`, what came of it."""
        seconds = {"play_s": played.seconds, "learn_s": time.monotonic() - played.at}
        mixture = len(self.course.grounds) > 1
        row = {"step": step} | summary(played.lesson, played.episodes, played.rewards, seconds, self.world, mixture)
        return row | learned | ({"unread_scores": self.world.total(played.unread)} if self.judge else {})


def look(
    policy: Policy,
    grounds: Iterable[TaskPool],
    config: RolloutConfig,
    pool: EnvPool,
    world: World,
    parallel: int | None = None,
) -> dict[str, float]:
    """Return `validation_success`, the mean over the parts, and with several parts `validation_success/PART` of each.

    Episodes that ended in an error are in no mean, and a part without others has none. Every process plays its share.
    """
    grounds = list(grounds)
    mine = [task for ground in grounds for task in ground.look[world.rank :: world.size]]
    found = {ground.name: [0, 0] for ground in grounds}
    part = {task: ground.name for ground in grounds for task in ground.look}
    for episode in rollout(policy, mine, config=config, pool=pool, parallel=parallel):
        if episode.outcome is not Outcome.ERROR:
            found[part[episode.task]][0] += episode.success
            found[part[episode.task]][1] += 1
    everyone = world.everyone(found)
    rates = {}
    for name in found:
        solved, played = (sum(one[name][k] for one in everyone) for k in (0, 1))
        if played:
            rates[name] = solved / played
    row = {"validation_success": sum(rates.values()) / len(rates)} if rates else {}
    return row | ({f"validation_success/{name}": rate for name, rate in rates.items()} if len(found) > 1 else {})


def summary(
    lesson: CurriculumStep,
    episodes: Sequence[Episode],
    rewards: Sequence[np.ndarray],
    seconds: Mapping[str, float],
    world: World,
    mixture: bool,
) -> dict[str, float]:
    """Return the row of a step.

    Args:
        lesson: what was to be played.
        episodes: what this process played of it.
        rewards: what each step was worth, by episode.
        seconds: `play_s` and `learn_s`.
        world: the processes that played the rest.
        mixture: whether the run has several parts.
    """
    part = {task: name for name, tasks in lesson.parts for task in tasks}
    count = Counter[str]()
    for episode, reward in zip(episodes, rewards, strict=True):
        if episode.outcome is Outcome.ERROR:
            count["errors"] += 1
            continue
        count.update(_facts(episode, float(reward.sum()), part))
    both: Counter[str] = Counter()
    for one in world.everyone(dict(count)):
        both.update(one)
    episodes_, steps = max(1, both["episodes"]), max(1, both["length"])
    row = {key: both[key] / episodes_ for key in ("success", "return", "reward", "length")}
    row |= {key: both[key] / steps for key in ("invalid", "truncated", "cut_prompts")}
    row |= {"errors": both["errors"], "tokens": both["tokens"]}
    row["tokens_per_s"] = both["tokens"] / max(1e-9, sum(seconds.values()))
    if mixture:
        for name, _ in lesson.parts:
            if both[f"episodes/{name}"]:
                row[f"success/{name}"] = both[f"success/{name}"] / both[f"episodes/{name}"]
    return row | dict(seconds)


def _facts(episode: Episode, reward: float, part: Mapping[Task, str]) -> dict[str, float]:
    name = part[episode.task]
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

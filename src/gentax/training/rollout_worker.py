"""What a run plays: the lesson's episodes and what each step of them is worth, and looks at validation tasks.

The environments, the judge and the expert's plan lengths are held while the run lasts. Who optimises is no concern of
this: every trainer plays so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gentax.core import Episode, stable_seed
from gentax.models.requests import ModelOptions
from gentax.policies.load import policy_of
from gentax.policies.local import LocalPolicy
from gentax.policies.protocol import Policy
from gentax.rollouts import EnvPool, rollout
from gentax.training.config import TrainConfig
from gentax.training.curriculum import Curriculum, CurriculumStep
from gentax.training.guide import PLANNED, Guided, head_starts, plan_lengths
from gentax.training.judge import Judge
from gentax.training.parallel import World
from gentax.training.rewards import rewards_of
from gentax.training.run_folder import Row
from gentax.training.summary import summary
from gentax.training.validate import look


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
        recipe: every setting.
        course: its schedule.
        world: the processes that share the playing.
        device: where a judge's model is.
    """

    def __init__(self, recipe: TrainConfig, course: Curriculum, world: World, device: str) -> None:
        self.recipe, self.course, self.world = recipe, course, world
        judge = recipe.reward.judge
        self.judge = None if judge is None else Judge(policy_of(judge, ModelOptions(device, recipe.dtype)))
        self.looking = recipe.looking()
        self._stack = ExitStack()

    def __enter__(self) -> RolloutWorker:
        play, looking = self.recipe.play, self.looking
        self._envs = self._look_envs = self._stack.enter_context(EnvPool(play))
        if (looking.wrap, looking.reward, looking.horizon) != (play.wrap, play.reward, play.horizon):
            self._look_envs = self._stack.enter_context(EnvPool(looking))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def play(self, policy: LocalPolicy, step: int, rows: Sequence[Row]) -> Played:
        """Play this process's groups of the lesson of `step`, after the rows of the steps before it."""
        recipe, world, began = self.recipe, self.world, time.monotonic()
        lesson = self.course.lesson(step, rows)
        tasks = lesson.tasks[world.rank :: world.size]  # a group is played by one process
        who: Policy = policy
        if lesson.hints or lesson.head_start:
            seed = stable_seed(recipe.seed, "guide", step)
            starts = head_starts(tasks, lesson.head_start, self._plans, seed, lesson.horizon)
            who = Guided(policy, lesson.hints, starts, seed)
        episodes = rollout(
            who,
            tasks,
            play=lesson.play,
            samples=recipe.group,
            seed=stable_seed(recipe.seed, "play", step),
            parallel=recipe.parallel,
            pool=self._envs,
            horizon=lesson.horizon,
        )
        policy.rest()
        scores, unread = self.judge.scores(episodes) if self.judge else (None, 0)
        if self.judge is not None and isinstance(self.judge.policy, LocalPolicy):
            self.judge.policy.rest()
        rewards = rewards_of(episodes, recipe.reward, recipe.explore, scores)
        done = time.monotonic()
        return Played(lesson, episodes, rewards, unread, done - began, done)

    @cached_property
    def _plans(self) -> Mapping[tuple[str, str], float]:
        """How long the expert's plans are, by (domain, level)."""
        some = [task for ground in self.course.grounds.values() for task in ground.learn[:PLANNED]]
        return plan_lengths(some, self.recipe.play, self._envs)

    def look(self, policy: Policy) -> Row:
        """Play the validation tasks; see `look.look`."""
        grounds, parallel = self.course.grounds.values(), self.recipe.parallel
        return look(policy, grounds, self.looking, self._look_envs, self.world, parallel)

    def row(self, step: int, played: Played, learned: Mapping[str, float]) -> Row:
        """Return the row of a step that was just learned from: what was played, and `learned`, what came of it."""
        seconds = {"play_s": played.seconds, "learn_s": time.monotonic() - played.at}
        mixture = len(self.course.grounds) > 1
        row = {"step": step} | summary(played.lesson, played.episodes, played.rewards, seconds, self.world, mixture)
        return row | learned | ({"unread_scores": self.world.total(played.unread)} if self.judge else {})

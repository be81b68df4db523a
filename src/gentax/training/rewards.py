"""What each step of an episode is worth to the learner: the environment's reward and what the recipe adds to it.

Rewards stay apart by step, so that a method that compares steps can do so; one that compares episodes adds them up.
Left out: what depends on the policy's probabilities (the KL taken from rewards stands in `policy_gradient.py`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from gentax.core import Episode, Outcome, Step
from gentax.training.config.exploration import ExplorationConfig
from gentax.training.config.reward import RewardConfig


def rewards_of(
    episodes: Sequence[Episode], reward: RewardConfig, explore: ExplorationConfig, scores: Sequence[float] | None = None
) -> list[np.ndarray]:
    """Return each episode's rewards, float64, shape (steps,).

    A step has the environment's reward; `reward` and `explore` say what is added to it. What an expert played for a
    head start has the environment's reward alone. An episode that ended in an error has zeros.

    Args:
        episodes: whole groups; a group is what was played on one task.
        reward: penalty, pay for thoughts, weight of the judge.
        explore: `new_states` is read here.
        scores: a judge's, from 0 to 1, one for each episode; paid at its last step.
    """
    rewards = [_steps(episode, reward) for episode in episodes]
    if explore.new_states:
        for members in groups(episodes):
            for i, bonus in zip(members, new_states([episodes[i] for i in members]), strict=True):
                rewards[i] += explore.new_states * bonus
    for i, score in enumerate(scores or ()):
        if len(rewards[i]) and episodes[i].outcome is not Outcome.ERROR:
            rewards[i][-1] += reward.judge_weight * score
    return rewards


def groups(episodes: Sequence[Episode]) -> list[list[int]]:
    """Return the indices of the episodes on each task. Those that ended in an error belong to no group."""
    members: dict[object, list[int]] = defaultdict(list)
    for i, episode in enumerate(episodes):
        if episode.outcome is not Outcome.ERROR:
            members[episode.task].append(i)
    return list(members.values())


def chosen(step: Step) -> bool:
    """Return whether the policy chose the action: in a head start an expert did, and no token was sampled."""
    return step.tokens is None or len(step.tokens.sampled) > 0


def _steps(episode: Episode, reward: RewardConfig) -> np.ndarray:
    if episode.outcome is Outcome.ERROR:
        return np.zeros(len(episode.steps))
    added = [
        reward.think_length * len(step.thought.split()) / 100 - reward.invalid_penalty * (not step.valid)
        if chosen(step)
        else 0.0
        for step in episode.steps
    ]
    return np.array([step.reward for step in episode.steps], np.float64) + added


def new_states(group: Sequence[Episode]) -> list[np.ndarray]:
    """Return, for each step of a group's episodes, 1 / sqrt(how often the group met the observation it led to).

    All visits of all episodes count, before or after this one, so that no episode is paid more for standing first in
    the list. An episode is paid once for an observation, and not for the one it began with: walking in circles does
    not pay. (A count-based bonus as in arXiv 1606.01868, its counts those of one group.)
    """
    met = [[*(step.observation for step in episode.steps), episode.final] for episode in group]
    count = Counter(observation for path in met for observation in path)
    paid = []
    for episode, path in zip(group, met, strict=True):
        bonus = np.zeros(len(episode.steps))
        for n, step in enumerate(episode.steps):
            if chosen(step) and path[n + 1] not in path[: n + 1]:
                bonus[n] = 1 / math.sqrt(count[path[n + 1]])
        paid.append(bonus)
    return paid

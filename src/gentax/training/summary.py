"""What a step's episodes were like: one row of numbers, the same for every process of a run.

Keys: step; success, return (the environment's), reward (what was learned from), length, each a mean over episodes;
invalid, truncated and cut_prompts (shares of steps); errors; tokens, tokens_per_s; play_s, learn_s. In a mixture
also success/PART for each part played. `policy_gradient.update` adds what it reports, and the run validation_success,
forgetting, elapsed_s and left_s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from gentax.core import Episode, Outcome, Task
from gentax.training.curriculum import CurriculumStep
from gentax.training.parallel import World


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

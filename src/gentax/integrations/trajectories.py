"""Trajectories that others recorded, as episodes: chat messages, conversations as in AgentTraj-L, Inspect's logs.

What such a file does not say stays unknown: rewards are 0, and whether the environment accepted an action is not known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from gentax.core import Episode, Outcome, Step, Task, UsageError, stable_seed
from gentax.core.episode import read_episodes
from gentax.training.trajectories import Conversation, read_trajectories

RECORDED = "recorded"  # the domain and level of such episodes
SUFFIXES = (".json", ".jsonl", ".eval")  # gentax's own episodes are gzipped
_ACTION = re.compile(r"<action>(.*?)</action>|^\s*Action:\s*(.*?)\s*$", re.S | re.M)


def read_any_episodes(path: Path) -> list[Episode]:
    """Read episodes of gentax, or trajectories of others by the end of their name.

    Raises:
        UsageError: a file that cannot be read, a line that is no trajectory, or does not say whether it succeeded.
    """
    if path.suffix not in SUFFIXES:
        return read_episodes(path)
    return list(_episodes(path))


def _episodes(path: Path) -> Iterator[Episode]:
    samples: Counter[Task] = Counter()
    for number, trajectory in enumerate(read_trajectories(path), 1):
        if isinstance(trajectory, Episode):
            yield trajectory
            continue
        if trajectory.success is None:
            raise UsageError(
                f'{path}, trajectory {number}, does not say whether it succeeded: give it "success": true or false'
            )
        index = stable_seed(trajectory.id) if trajectory.id else number - 1
        task = Task(RECORDED, RECORDED, "test", index)
        yield _episode(trajectory, task, samples[task])
        samples[task] += 1


def _episode(conversation: Conversation, task: Task, sample: int) -> Episode:
    steps = tuple(
        Step(exchange.message, exchange.reply, _action(exchange.reply), 0.0, valid=True)
        for exchange in conversation.exchanges
    )
    outcome = Outcome.SUCCESS if conversation.success else Outcome.FAILURE
    return Episode(task, sample, "", steps, outcome, validity_known=False)


def _action(reply: str) -> str:
    """Return the last action in a reply that marks actions, else the whole reply."""
    found = _ACTION.findall(reply)
    return (found[-1][0] or found[-1][1]).strip() if found else reply.strip()

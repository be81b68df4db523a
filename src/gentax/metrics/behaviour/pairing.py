"""The episodes of one policy or of two by domain and task: what is compared is the same tasks, without errors."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gentax.core import Episode, Task, UsageError
from gentax.metrics.left_out import leave_out_errors, successes

By = dict[Task, list[Episode]]  # the episodes of each task, by sample


def by_domain(*policies: Iterable[Episode]) -> dict[str, tuple[list[By], int]]:
    """Return, by domain, each policy's episodes by task, the same tasks in the same order, and how many were left out.

    Raises:
        UsageError: no episodes, an episode that is there twice, tasks or samples that do not pair, fewer than 2 tasks
            of a domain, more of them with an error than `leave_out_errors` lets go.
    """
    sides = [_by_key(episodes) for episodes in policies]
    for other in sides[1:]:
        alone = sorted(set(sides[0]) ^ set(other))
        if alone:
            (task, sample), of = alone[0], "first" if alone[0] in sides[0] else "second"
            raise UsageError(
                f"tasks must pair: {len(alone)} of {len({*sides[0], *other})} episodes were played by one policy "
                f"alone, such as {task.id} (sample {sample}) by the {of}"
            )
    found = {}
    for domain in sorted({task.domain for task, _ in sides[0]}):
        tasks = sorted({task for task, _ in sides[0] if task.domain == domain})
        whole = [_by_task(side, tasks) for side in sides]
        scores = [{domain: successes(flat(one), tasks)} for one in whole]
        _, left_out = leave_out_errors(scores)  # refuses where there are too many
        broken_K = np.isnan([score[domain] for score in scores]).any(0)
        kept = [task for task, broken in zip(tasks, broken_K, strict=True) if not broken]
        if len(kept) < 2:
            raise UsageError(f"what was done on {domain} needs episodes of at least 2 tasks, not {len(kept)}")
        found[domain] = [{task: one[task] for task in kept} for one in whole], left_out[domain]
    return found


def flat(side: By) -> list[Episode]:
    """Return all episodes, task by task."""
    return [episode for of_task in side.values() for episode in of_task]


def _by_key(episodes: Iterable[Episode]) -> dict[tuple[Task, int], Episode]:
    found: dict[tuple[Task, int], Episode] = {}
    for episode in episodes:
        if found.setdefault((episode.task, episode.sample), episode) is not episode:
            raise UsageError(f"there are two episodes of sample {episode.sample} of {episode.task.id} of one policy")
    if not found:
        raise UsageError("there are no episodes")
    return found


def _by_task(side: dict[tuple[Task, int], Episode], tasks: list[Task]) -> By:
    by: By = {task: [] for task in tasks}
    for task, sample in sorted(side):
        if task in by:
            by[task].append(side[task, sample])
    return by

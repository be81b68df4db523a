"""The anatomy of lost episodes: tasks that were solved before training and fail after it, and how they fail.

These are counts of the episodes that were played, not estimates: they describe, and `metrics.behaviour` tests. What an
episode did is read as there, which also says how the step limit of a level is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gentax.core import Episode, Outcome, UsageError
from gentax.metrics.behaviour import AnnotatedEpisode, annotate

ERROR = "an error"
LOST = "lost"
# Success (before, after) -> what changed, in the order in which a page shows them.
CHANGES = {
    (True, False): LOST,
    (False, True): "gained",
    (True, True): "solved twice",
    (False, False): "failed twice",
}
# How an episode failed: one of the first three is true of each, any of the others may be.
KINDS: dict[str, Callable[[AnnotatedEpisode], bool]] = {
    "ended early": lambda one: not one.cut_off,
    "gave up": lambda one: one.gave_up,
    "ran out of steps": lambda one: one.cut_off and not one.gave_up,
    "ended in a loop": lambda one: one.loop,
    "an invalid action": lambda one: one.episode.invalid > 0,
    "no action read": lambda one: any(not step.action and not step.truncated for step in one.episode.steps),
    "a reply cut off": lambda one: one.episode.truncated > 0,
}


@dataclass(frozen=True)
class TaskChange:
    """One task before and after training."""

    before: Episode
    after: Episode
    change: str  # of CHANGES, or ERROR
    kinds: tuple[str, ...]  # of KINDS: how it failed after training; empty where it did not


@dataclass(frozen=True)
class LostEpisodes:
    """Counts of lost episodes; those of several seeds are added with `+`."""

    solved: int = 0  # before training
    lost: int = 0  # of these
    kinds: Counter[str] = field(default_factory=Counter)  # of KINDS
    actions: tuple[int, int] = (0, 0)  # in the lost episodes, before and after training
    invalid: tuple[int, int] = (0, 0)  # of these

    def __add__(self, other: LostEpisodes) -> LostEpisodes:
        before, after = zip(self.actions, other.actions, strict=True), zip(self.invalid, other.invalid, strict=True)
        (a, b), (c, d) = map(sum, before), map(sum, after)
        kinds = self.kinds + other.kinds
        return LostEpisodes(self.solved + other.solved, self.lost + other.lost, kinds, (a, b), (c, d))

    @property
    def invalid_percent(self) -> tuple[float, float] | None:
        """The share of their actions that were invalid, before and after training; None where nothing was lost."""
        if not all(self.actions):
            return None
        before, after = (100 * n / total for n, total in zip(self.invalid, self.actions, strict=True))
        return before, after


def task_changes(before: Sequence[Episode], after: Sequence[Episode]) -> Iterator[TaskChange]:
    """Yield what changed on each task.

    Args:
        before: the episodes before training, of one domain.
        after: those after it, on the same tasks in the same order.

    Raises:
        UsageError: episodes that do not pair.
    """
    horizons: dict[str, int] = {}
    for episode in (*before, *after):
        horizons[episode.task.level] = max(horizons.get(episode.task.level, 0), episode.length)
    if len(before) != len(after):
        raise UsageError(f"{len(before)} episodes before training do not pair with {len(after)} after it")
    for was, now in zip(before, after, strict=True):
        if (was.task, was.sample) != (now.task, now.sample):
            raise UsageError(f"a pair is one task, not {was.task.id} and {now.task.id}")
        broke = Outcome.ERROR in (was.outcome, now.outcome)
        kinds: tuple[str, ...] = ()
        if now.outcome is Outcome.FAILURE:
            annotated = annotate(now, horizons[now.task.level])
            kinds = tuple(name for name, holds in KINDS.items() if holds(annotated))
        yield TaskChange(was, now, ERROR if broke else CHANGES[was.success, now.success], kinds)


def lost_episodes(changes: Iterable[TaskChange]) -> LostEpisodes:
    """Count what `task_changes` found. Tasks with an error are left out."""
    known = [one for one in changes if one.change != ERROR]
    lost = [one for one in known if one.change == LOST]
    kinds = Counter(kind for one in lost for kind in one.kinds)
    a, b = (sum(getattr(one, when).length for one in lost) for when in ("before", "after"))
    c, d = (sum(getattr(one, when).invalid for one in lost) for when in ("before", "after"))
    return LostEpisodes(sum(one.before.success for one in known), len(lost), kinds, (a, b), (c, d))

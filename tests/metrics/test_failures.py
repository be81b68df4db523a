"""What was lost, and how it fails: counts that can be made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gentax.core import Episode, Outcome, Step, Task, UsageError
from gentax.metrics.failures import KINDS, LostEpisodes, lost_episodes, task_changes


def episode(index: int, outcome: Outcome, *actions: str, horizon: int = 0) -> Episode:
    """An episode whose states all differ; an action `!` is refused, `` could not be read, `…` was cut off."""
    actions = actions * (horizon // len(actions)) if horizon else actions
    steps = [
        Step(f"state {n}", a, "" if a in ("", "…") else a, 0.0, a not in ("!", "", "…"), truncated=a == "…")
        for n, a in enumerate(actions)
    ]
    return Episode(Task("crafting", "easy", "test", index), 0, "goal", tuple(steps), outcome, "the end")


YES, NO, ERROR = Outcome.SUCCESS, Outcome.FAILURE, Outcome.ERROR


def test_changes_and_kinds_of_failure():
    before = [episode(n, outcome, "a") for n, outcome in enumerate((YES, YES, YES, NO, YES, NO))]
    after = [
        episode(0, NO, "a", "b"),  # ended early
        episode(1, NO, "!", horizon=12),  # refused to the end, in a loop
        episode(2, YES, "a"),
        episode(3, YES, "a"),
        episode(4, ERROR, "a"),
        episode(5, NO, "a", "", "b", "…", *"cdefghij"[:8]),  # out of steps, and still trying
    ]
    changes = list(task_changes(before, after))
    assert [one.change for one in changes] == ["lost", "lost", "solved twice", "gained", "an error", "failed twice"]
    assert changes[0].kinds == ("ended early",)
    assert changes[1].kinds == ("gave up", "ended in a loop", "an invalid action")
    assert changes[5].kinds == ("ran out of steps", "an invalid action", "no action read", "a reply cut off")
    assert not any(one.kinds for one in changes[2:5])
    assert all(kind in KINDS for one in changes for kind in one.kinds)

    counted = lost_episodes(changes)
    assert (counted.solved, counted.lost) == (3, 2)  # the one with an error is left out
    assert counted.kinds["gave up"] == 1
    assert counted.actions == (2, 14)
    assert counted.invalid == (0, 12)
    assert counted.invalid_percent == (0, pytest.approx(100 * 12 / 14))
    twice = counted + counted
    assert (twice.solved, twice.lost, twice.kinds["gave up"], twice.actions) == (6, 4, 2, (4, 28))
    assert twice.invalid_percent == counted.invalid_percent
    assert LostEpisodes().invalid_percent is None


def test_episodes_that_do_not_pair_are_refused():
    one, two = episode(1, YES, "a"), episode(2, YES, "a")
    for other in ([two], [one, one], [replace(one, sample=1)]):
        with pytest.raises(UsageError):
            list(task_changes([one], other))

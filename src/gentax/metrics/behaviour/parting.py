"""Where in an episode two policies part ways, at what kind of step, and whether that goes with winning or losing.

Both policies play a task with the same random numbers, so as long as they have done the same they are in the same
state with the same draws before them. They part at the first step at which their actions differ. What follows is not
compared step by step: the states are no longer the same.

A pair that reads different observations though its actions were the same (an environment that is not deterministic)
counts as together up to there and is not followed further. Whether the two files were played with the same seed
cannot be seen in them; with different ones policies that sample part sooner.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gentax.core import Episode, Step, Task, UsageError
from gentax.metrics.behaviour.pairing import by_domain
from gentax.metrics.behaviour.ratios import Ratio, change, estimate, less
from gentax.metrics.behaviour.survival import Curve, curve
from gentax.metrics.statistics import Estimate

KINDS = 5  # of partings that are listed
NOTHING = "(nothing)"  # the first word of a reply without an action


@dataclass(frozen=True)
class Pair:
    """The episodes of two policies on one task and sample."""

    task: Task
    before: Episode
    after: Episode
    last: int  # the step at which they part, or the last at which they were seen together; from 1
    steps: tuple[Step, Step] | None  # where they part; None when they do not

    @property
    def parted(self) -> bool:
        return self.steps is not None


@dataclass(frozen=True)
class Kind:
    """A kind of step at which policies part: what each does there, by the first word."""

    before: str
    after: str
    count: int
    share: Estimate | None  # percent of partings


@dataclass(frozen=True)
class Group:
    """Pairs by when they part, and what became of them."""

    name: str  # "early", "late" or "never"
    pairs: int
    before: Estimate | None  # percent success; None with fewer than 2 tasks
    after: Estimate | None
    change: Estimate | None  # points


@dataclass(frozen=True)
class Parting:
    """Where two policies part on one domain. Intervals cover tasks."""

    domain: str
    pairs: int
    parted: Estimate | None  # percent of pairs that part at all
    curve: Curve
    kinds: tuple[Kind, ...]  # the most frequent first
    accepted: tuple[Estimate | None, Estimate | None]  # percent of the actions at a parting: before's, after's
    accepted_change: Estimate | None  # points
    early: int | None  # the last step that counts as early: the middle one of the partings
    groups: tuple[Group, ...]
    early_less_late: Estimate | None  # points: the change of success of the early group - that of the late one

    def to_json(self) -> dict[str, Any]:
        return {
            "pairs": self.pairs,
            "parted": _json(self.parted),
            **self.curve.to_json(),
            "kinds": [{**vars(kind), "share": _json(kind.share)} for kind in self.kinds],
            "accepted": {
                "before": _json(self.accepted[0]),
                "after": _json(self.accepted[1]),
                "change": _json(self.accepted_change),
            },
            "early": self.early,
            "groups": [
                {**vars(group), **{name: _json(getattr(group, name)) for name in ("before", "after", "change")}}
                for group in self.groups
            ],
            "early_less_late": _json(self.early_less_late),
        }


def partings(before: Iterable[Episode], after: Iterable[Episode]) -> dict[str, Parting]:
    """Return where two policies part on the same tasks and samples, by domain. Deterministic.

    Raises:
        UsageError: see `compare`; a task that starts otherwise in the two.
    """
    return {domain: _parting(domain, _pairs(*sides)) for domain, (sides, _) in by_domain(before, after).items()}


def pair(before: Episode, after: Episode) -> Pair:
    """Find where two episodes of one task part."""
    together = 0
    for one, other in zip(before.steps, after.steps, strict=False):
        if one.observation != other.observation:
            break
        together += 1
        if one.action != other.action:
            return Pair(before.task, before, after, together, (one, other))
    return Pair(before.task, before, after, together, None)


def first_word(action: str) -> str:
    """Return the first word of an action, in small letters.

    >>> first_word("click[b0140]"), first_word("")
    ('click', '(nothing)')
    """
    found = re.search(r"\w+", action.lower())
    return found.group() if found else action.strip()[:12] or NOTHING


def _pairs(before: dict[Task, list[Episode]], after: dict[Task, list[Episode]]) -> list[Pair]:
    pairs = [pair(*both) for task in before for both in zip(before[task], after[task], strict=True)]
    for one in pairs:
        starts = [(e.goal, [step.observation for step in e.steps[:1]]) for e in (one.before, one.after)]
        if starts[0] != starts[1]:
            raise UsageError(
                f"{one.task.id} does not start alike before and after: the two were not played in the same way "
                "(wrappers, version), so there is no step at which they part"
            )
    return pairs


def _parting(domain: str, pairs: list[Pair]) -> Parting:
    steps = sorted(one.last for one in pairs if one.parted)
    early = steps[(len(steps) - 1) // 2] if steps else None
    groups = (
        _group("early", pairs, lambda one: one.parted and one.last <= early),
        _group("late", pairs, lambda one: one.parted and one.last > early),
        _group("never", pairs, lambda one: not one.parted),
    )
    moved = [group.change for group in groups[:2]]
    accepted = [_ratio(pairs, lambda one, side=side: one.steps[side].valid, lambda one: one.parted) for side in (0, 1)]
    return Parting(
        domain=domain,
        pairs=len(pairs),
        parted=estimate(_ratio(pairs, lambda one: one.parted)),
        curve=curve([one.last for one in pairs], [one.parted for one in pairs], [one.task for one in pairs]),
        kinds=_kinds(pairs),
        accepted=(estimate(accepted[0]), estimate(accepted[1])),
        accepted_change=change(*accepted),
        early=early,
        groups=groups,
        early_less_late=None if None in moved else less(*moved, "points"),  # of different pairs: not correlated
    )


def _kinds(pairs: list[Pair]) -> tuple[Kind, ...]:
    counts = Counter(_kind(one) for one in pairs if one.parted)
    ranked = sorted(counts, key=lambda kind: (-counts[kind], kind))[:KINDS]
    shares = [_ratio(pairs, lambda one, kind=kind: _kind(one) == kind, lambda one: one.parted) for kind in ranked]
    return tuple(Kind(*kind, counts[kind], estimate(share)) for kind, share in zip(ranked, shares, strict=True))


def _kind(one: Pair) -> tuple[str, str]:
    assert one.steps is not None
    return first_word(one.steps[0].action), first_word(one.steps[1].action)


def _group(name: str, pairs: list[Pair], holds: Callable[[Pair], bool]) -> Group:
    before = _ratio(pairs, lambda one: one.before.success, holds)
    after = _ratio(pairs, lambda one: one.after.success, holds)
    return Group(name, sum(map(holds, pairs)), estimate(before), estimate(after), change(before, after))


def _ratio(
    pairs: list[Pair],
    value: Callable[[Pair], float],
    holds: Callable[[Pair], bool] = lambda one: True,
) -> Ratio:
    """Return the share with `value` of the pairs for which `holds`, as sums of each task."""
    sums: dict[Task, list[float]] = {}
    for one in pairs:
        of_task = sums.setdefault(one.task, [0.0, 0.0])
        if holds(one):
            of_task[0] += value(one)
            of_task[1] += 1
    return Ratio(*np.array(list(sums.values())).T, unit="percent")


def _json(value: Estimate | None) -> dict[str, Any] | None:
    return None if value is None else value.to_json()

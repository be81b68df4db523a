"""The OOD rank score: rank the sources on each target, points within a tie as equal, and sum the ranks.

The paper does not say which rank follows a tie, so there are three readings: the next one (1, 1, 2), the one that
counts who is ahead (1, 1, 3), or both share the middle of their places (1½, 1½, 3).

Left out: chains of ties. A source is tied with the best of its group, not with whoever comes just before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gentax.metrics.reference.metrics import Family
from gentax.metrics.reference.ranges import SLACK, Cells, Range, corners


@dataclass(frozen=True)
class Standings:
    """The cells of a rank score: on each target, the success after RL on the asked source, then on the others."""

    targets: tuple[str, ...]
    groups: tuple[tuple[float | None, ...], ...]
    tie: float  # points

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(t for t, group in zip(self.targets, self.groups, strict=True) if None in group)

    def present(self) -> Standings:
        """Return the targets on which no cell is missing."""
        kept = [(t, g) for t, g in zip(self.targets, self.groups, strict=True) if None not in g]
        return Standings(tuple(t for t, _ in kept), tuple(g for _, g in kept), self.tie)


@dataclass(frozen=True)
class RankScore:
    """One reading of the rank score."""

    name: str
    formula: str
    place: Callable[[list[int], int], float]  # sizes of the groups ahead, size of one's own -> rank

    def range(self, cells: Standings, unknown: tuple[float, float] | None = None) -> Range | None:
        """Return the score, with its least and largest value over the corners of the cells of each target.

        Targets have no cell in common, so the limits of the sum are the sums of the limits.
        """
        if not cells.targets:
            return None
        value = low = high = 0.0
        for group in cells.groups:
            names = tuple(str(n) for n in range(len(group)))
            box = Cells(names, {"after": group})
            tried_SC = corners(box, ("after",), unknown or (np.nan, np.nan))["after"]
            ranks = [self._rank(success_S.tolist(), cells.tie) for success_S in tried_SC.T]
            value, low, high = value + ranks[0], low + min(ranks[1:]), high + max(ranks[1:])
        return Range(value, low, high)

    def _rank(self, success: list[float], tie: float) -> float:
        """Return the rank of the first of `success`."""
        ahead: list[int] = []
        own, left = success[0], sorted(success, reverse=True)
        if np.isnan(success).any():
            return float("nan")
        while left:
            group = [x for x in left if x >= left[0] - tie - SLACK]
            if own in group:
                return self.place(ahead, len(group))
            ahead.append(len(group))
            left = left[len(group) :]
        raise AssertionError("the asked source is among the ranked")


RANK = Family(
    stated=(
        RankScore("rank score 1, 1, 2", "Σ of ranks, the next rank after a tie", lambda ahead, own: len(ahead) + 1),
        RankScore("rank score 1, 1, 3", "Σ of ranks, one more than are ahead", lambda ahead, own: sum(ahead) + 1),
        RankScore("rank score 1½, 1½, 3", "Σ of mean ranks", lambda ahead, own: sum(ahead) + (own + 1) / 2),
    ),
    others=(),
)

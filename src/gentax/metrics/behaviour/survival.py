"""How many pairs are still together after each step, when pairs leave for another reason too: Kaplan & Meier (1958).

A pair whose episodes end while the two policies have always done the same can part no more; it is censored there.
The curve is thus about pairs whose episodes go on. The variance is Greenwood's (1926), summed within tasks where a
task has several samples (Williams 1995), to which it reduces with one. Limits are Wilson's with the number of tasks
that would have that variance (Rothman 1978), so that they do not collapse where all or none are together; the median
has those of Brookmeyer & Crowley (1982): every step at which the curve's interval holds one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from gentax.metrics.behaviour.ratios import Z, wilson
from gentax.metrics.statistics import TASKS, Estimate


@dataclass(frozen=True)
class Curve:
    """The share still together. Entry n is that after step n + 1."""

    together: tuple[Estimate, ...]  # percent; ends where no pair is left to part
    at_risk: tuple[int, ...]  # pairs that came to that step together
    median: int | None  # the step by which half have parted; None when they do not
    median_low: int | None
    median_high: int | None  # None when the data allow that half never part

    def to_json(self) -> dict[str, Any]:
        together = [one.to_json() for one in self.together]
        median = {name: getattr(self, name) for name in ("median", "median_low", "median_high")}
        return {"together": together, "at_risk": list(self.at_risk), **median}


def curve(last: Sequence[int], parted: Sequence[bool], tasks: Sequence[object]) -> Curve:
    """Estimate the curve from (N,) pairs.

    Args:
        last: the step at which the pair parted, or the last one that it was seen together at; from 1.
        parted: whether it parted there.
        tasks: which task a pair was played on; pairs of one task must follow each other.
    """
    last_N, parted_N = np.asarray(last), np.asarray(parted, bool)
    starts = np.cumsum([0] + [len(list(pairs)) for _, pairs in groupby(tasks)])[:-1]
    share, influence_N = 1.0, np.zeros(len(last_N))
    together, at_risk = [], []
    for step in range(1, int(last_N.max(initial=0)) + 1):
        going_N = last_N >= step
        parting_N = parted_N & (last_N == step)
        going, parting = int(going_N.sum()), int(parting_N.sum())
        share *= 1 - parting / going
        if share > 0:
            # What each pair moves log(share) by; the squares add up to Greenwood's sum of d / (r (r - d)).
            influence_N = influence_N - (parting_N - parting / going * going_N) / (going - parting)
        variance = share**2 * float((np.add.reduceat(influence_N, starts) ** 2).sum())
        of_tasks = np.add.reduceat(parted_N if share == 0 else going_N, starts) > 0  # where the variance says nothing
        trials = share * (1 - share) / variance if 0 < share < 1 and variance > 0 else int(of_tasks.sum())
        low, high = wilson(share, Z**2 / trials)
        together.append(Estimate(100 * share, 100 * low, 100 * high, TASKS, "percent", len(starts)))
        at_risk.append(going)
    return Curve(
        tuple(together),
        tuple(at_risk),
        _first(one.value for one in together),
        _first(one.low for one in together),
        _first(one.high for one in together),
    )


def _first(shares: Any) -> int | None:
    return next((step for step, share in enumerate(shares, 1) if share <= 50), None)

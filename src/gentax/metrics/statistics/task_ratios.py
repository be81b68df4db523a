"""Ratios of sums over tasks, for one policy and for the change between two policies on the same tasks.

Each task adds to a numerator and a denominator: its invalid actions and its actions, its steps and its successes.
Actions of one task are correlated, so the task is the unit of the variance (Cochran 1977, section 6.3: residuals are
numerator - ratio x denominator).

A share (numerator at most denominator) has Wilson's (1927) interval with the effective number of tasks (Korn & Graubard
1998); one task of all and one of none are added to the variance, so that it is not 0 when all tasks agree. Any other
ratio has Fieller's (1954). The interval of a change combines the two policies' own intervals with the correlation of
their residuals over tasks (Newcombe 1998 for paired proportions; Zou & Donner 2008 for any two estimates).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from gentax.core.errors import UsageError
from gentax.metrics.statistics.intervals import wilson_limits
from gentax.metrics.statistics.scores import LEVEL, TASKS, Estimate

Z = float(ndtri(0.5 + LEVEL / 2))


@dataclass(frozen=True)
class Ratio:
    """The sums of each task, both (K,). A task with a denominator of 0 does not enter the ratio but keeps its place."""

    numerator_K: np.ndarray
    denominator_K: np.ndarray
    unit: str  # "percent" when it is a share

    def __post_init__(self) -> None:
        if len(self.numerator_K) < 2 or self.numerator_K.shape != self.denominator_K.shape:
            raise UsageError(f"a ratio over tasks needs at least 2 tasks, not {len(self.numerator_K)}")
        if not np.isfinite([self.numerator_K, self.denominator_K]).all() or self.denominator_K.min() < 0:
            raise UsageError("a ratio over tasks needs finite numerators, and denominators of at least 0")
        if self.share and not ((self.numerator_K >= 0) & (self.numerator_K <= self.denominator_K)).all():
            raise UsageError("a share needs numerators between 0 and the denominators")

    @property
    def share(self) -> bool:
        return self.unit == "percent"

    @property
    def size(self) -> float:
        """The mean denominator of the tasks that have one: the size of the tasks added to a share's variance."""
        return float(self.denominator_K.sum() / max(1, np.count_nonzero(self.denominator_K)))

    def residuals(self) -> np.ndarray:
        """Return numerator - ratio x denominator (K,); for a share the ratio includes the two added tasks."""
        more = self.size if self.share else 0.0
        centre = (self.numerator_K.sum() + more) / (self.denominator_K.sum() + 2 * more)
        return np.asarray(self.numerator_K - centre * self.denominator_K)


def estimate(ratio: Ratio) -> Estimate | None:
    """Return Σ numerator / Σ denominator with its 95 % interval (a share in percent); None without a finite interval.

    A ratio that is the same on every task, such as replies of three tokens each, has an interval without width
    (`low == high`): the tasks show no spread to make one of.
    """
    tasks = int(np.count_nonzero(ratio.denominator_K))
    if tasks < 2:
        return None
    value, low, high = _wilson(ratio) if ratio.share else _fieller(ratio)
    if not np.isfinite([low, high]).all():
        return None
    scale = 100.0 if ratio.share else 1.0
    return Estimate(scale * value, scale * low, scale * high, TASKS, ratio.unit, tasks)


def change(before: Ratio, after: Ratio) -> Estimate | None:
    """Return after - before, paired by task, a share in points; None when either has no finite interval.

    Raises:
        UsageError: tasks that do not pair.
    """
    if before.unit != after.unit or len(before.numerator_K) != len(after.numerator_K):
        raise UsageError("a change needs the same measure of the same tasks before and after")
    first, second = estimate(before), estimate(after)
    if first is None or second is None:
        return None
    return _difference(second, first, "points" if before.share else before.unit, _correlation(before, after))


def _difference(after: Estimate, before: Estimate, unit: str, correlation: float) -> Estimate:
    """Return after - before, with an interval from theirs and their correlation (Zou & Donner 2008)."""

    def margin(a: float, b: float) -> float:
        return float(np.sqrt(max(a**2 + b**2 - 2 * correlation * a * b, 0.0)))

    value = after.value - before.value
    low = value - margin(after.value - after.low, before.high - before.value)
    high = value + margin(after.high - after.value, before.value - before.low)
    return Estimate(value, low, high, TASKS, unit, min(after.n, before.n))


def p_value(estimate: Estimate) -> float:
    """Return the two-sided p-value of 0, read off the limit that faces 0 (Altman & Bland 2011)."""
    facing = estimate.value - estimate.low if estimate.value > 0 else estimate.high - estimate.value
    if estimate.value == 0 or facing <= 0:
        return float(estimate.value == 0)
    return float(2 * ndtr(-Z * abs(estimate.value) / facing))


def _wilson(ratio: Ratio) -> tuple[float, float, float]:
    size, total = ratio.size, ratio.denominator_K.sum()
    centre = (ratio.numerator_K.sum() + size) / (total + 2 * size)
    spread = (ratio.residuals() ** 2).sum() + size**2 * (centre**2 + (1 - centre) ** 2)
    variance = spread / (total + 2 * size) / total
    value = float(ratio.numerator_K.sum() / total)
    return value, *wilson_limits(value, Z**2 * variance / (centre * (1 - centre)))


def _fieller(ratio: Ratio) -> tuple[float, float, float]:
    """Solve (T - R B)² = t² (V_TT - 2 R V_TB + R² V_BB) for R, with T and B the mean top and bottom."""
    tasks = len(ratio.numerator_K)
    top, bottom = ratio.numerator_K.mean(), ratio.denominator_K.mean()
    margin = stdtrit(tasks - 1, 0.5 + LEVEL / 2) ** 2 * np.cov(ratio.numerator_K, ratio.denominator_K) / tasks
    a, b, c = bottom**2 - margin[1, 1], top * bottom - margin[0, 1], top**2 - margin[0, 0]
    if (ratio.residuals() ** 2).sum() <= 1e-12 * (ratio.numerator_K**2).sum():  # the same on every task
        return (float(top / bottom),) * 3
    if a <= 0:
        return float(top / bottom), -np.inf, np.inf
    root = np.sqrt(max(b * b - a * c, 0.0))
    return float(top / bottom), float((b - root) / a), float((b + root) / a)


def _correlation(before: Ratio, after: Ratio) -> float:
    """Return the correlation of residuals over tasks; 0 where one side has none.

    Of a share with half a task added for each of the four pairs of all and nothing (Agresti & Min 2005), so that two
    policies that did exactly the same on every task are not taken to differ by exactly 0 on all others.
    """
    pairs = np.stack([before.residuals(), after.residuals()])
    weights = np.ones(pairs.shape[1])
    if before.share:
        ends = [_ends(before), _ends(after)]
        pairs = np.hstack([pairs, [[ends[0][i] for i in (0, 0, 1, 1)], [ends[1][i] for i in (0, 1, 0, 1)]]])
        weights = np.append(weights, np.full(4, 0.5))
    (v_aa, v_ab), (_, v_bb) = (weights * pairs) @ pairs.T
    return float(v_ab / np.sqrt(v_aa * v_bb)) if v_aa > 0 and v_bb > 0 else 0.0


def _ends(ratio: Ratio) -> tuple[float, float]:
    """Return the residuals of a task that is all of it and of one that is none of it."""
    size = ratio.size
    centre = (ratio.numerator_K.sum() + size) / (ratio.denominator_K.sum() + 2 * size)
    return float(size * (1 - centre)), float(-size * centre)

"""Multiple testing: over targets (Holm's correction) and over time (group-sequential interim analyses).

**Repeated confidence intervals** (Jennison & Turnbull 1989) widen the interval of each interim analysis so that all of
them together cover the truth with 95 %: one may stop at any, for any reason, and the interval at hand is valid. The 5 %
are divided by the alpha-spending function of Lan & DeMets (1983) of O'Brien & Fleming's shape, which spends almost
nothing early. Critical values come from the recursion of Armitage, McPherson & Rowe (1969), integrated numerically,
which takes increments to be normal and independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from gentax.core.errors import UsageError
from gentax.metrics.statistics.scores import LEVEL

_GRID = 801  # points at which a density is kept
_REACH = 8.0  # standard deviations that a grid spans to either side at least
_HIGHEST = 6.0  # critical value; one analysis in 500 million crosses it, which is nothing against alpha

Key = TypeVar("Key")


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Return p-values adjusted for their number, which controls the family-wise error rate (Holm 1979).

    Valid under any dependence of the tests.

    Raises:
        UsageError: a p-value that is NaN or outside [0, 1].
    """
    for key, p in p_values.items():
        if not 0 <= p <= 1:
            raise UsageError(f"the p-value of {key} must lie in [0, 1], not {p}")
    order = sorted(p_values, key=lambda key: p_values[key])
    factors = range(len(order), 0, -1)
    adjusted = np.maximum.accumulate([min(1.0, k * p_values[key]) for key, k in zip(order, factors, strict=True)])
    by_key = dict(zip(order, map(float, adjusted), strict=True))
    return {key: by_key[key] for key in p_values}


@dataclass(frozen=True)
class InterimAnalyses:
    """Equally spaced analyses of growing data. A `count` of 1 is an ordinary study.

    Raises:
        UsageError: no analysis, or a level outside (0, 1).
    """

    count: int
    level: float = LEVEL

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"a study needs at least 1 analysis of its data, not {self.count}")
        if not 0 < self.level < 1:
            raise UsageError(f"the level must lie between 0 and 1, not {self.level}")

    def tasks(self, analysis: int, total: int) -> int:
        """Return how many of `total` tasks are in at an analysis (from 1), at least 2."""
        return max(2, round(total * analysis / self.count))

    def level_at(self, analysis: int) -> float:
        """Return the level of the interval at an analysis (from 1), above `level` before the final one."""
        return self.level if self.count == 1 else float(1 - 2 * ndtr(-self.critical_values[analysis - 1]))

    @property
    @cache  # noqa: B019  (equal plans share it: a report asks for the same few again and again)
    def critical_values(self) -> tuple[float, ...]:
        """The critical value of a standard normal at each analysis, falling."""
        alpha, spent = 1 - self.level, 0.0
        values: list[float] = []
        density = _SequentialDensity(self.count, 0.0)
        for analysis in range(1, self.count + 1):
            # Lan & DeMets's first spending function for either side with half of alpha
            goal = 4 * ndtr(ndtri(alpha / 4) / np.sqrt(analysis / self.count)) - spent
            if analysis == 1:
                z = float(-ndtri(goal / 2))
            else:

                def excess(z: float, analysis: int = analysis, goal: float = goal) -> float:
                    return density.crossing_probability(analysis, z) - goal

                z = float(brentq(excess, 0.5, 30.0, xtol=1e-10))
            values.append(min(z, _HIGHEST))
            density.advance(analysis, values[-1])
            spent += goal
        return tuple(values)

    def power(self, drift: float) -> float:
        """Return the chance that some analysis excludes 0 when the final statistic has mean `drift`."""
        density, total = _SequentialDensity(self.count, drift), 0.0
        for analysis, z in enumerate(self.critical_values, 1):
            total += density.crossing_probability(analysis, z)
            density.advance(analysis, z)
        return float(total)

    @cache  # noqa: B019
    def drift(self, power: float) -> float:
        """Return the mean of the final statistic at which the chance of detecting an effect is `power`."""
        return float(brentq(lambda drift: self.power(drift) - power, 0.0, 20.0))


def group_sequential_holm(p_values: Mapping[Key, float], analyses: InterimAnalyses, analysis: int) -> frozenset[Key]:
    """Return which tests are significant by Holm's procedure at an interim analysis.

    Each step is taken at the critical value of this analysis for its share of alpha: closed testing with
    group-sequential boundaries (Ye, Li, Liu & Yao 2013), valid at whichever analysis one stops.
    """
    significant: set[Key] = set()
    for n, (key, p) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        alpha = (1 - analyses.level) / (len(p_values) - n)
        if p >= 1 - InterimAnalyses(analyses.count, 1 - alpha).level_at(analysis):
            break
        significant.add(key)
    return frozenset(significant)


class _SequentialDensity:
    """The density of the sum S_k = Z_k sqrt(k / count) of a study that has not stopped yet, on a grid.

    An increment has variance 1 / count and mean drift / count.
    """

    def __init__(self, count: int, drift: float) -> None:
        self.step, self.mean = 1 / count, drift / count
        self.at = np.array([0.0])
        self.mass = np.array([1.0])  # probability at each point, integration weights included

    def crossing_probability(self, analysis: int, z: float) -> float:
        """Return the chance that the study goes on until `analysis` and then crosses ±z."""
        limit, scale = z * np.sqrt(analysis * self.step), np.sqrt(self.step)
        over = ndtr((self.at + self.mean - limit) / scale) + ndtr((-limit - self.at - self.mean) / scale)
        return float(self.mass @ over)

    def advance(self, analysis: int, z: float) -> None:
        """Advance to `analysis` and keep what lies within ±z."""
        scale = np.sqrt(self.step)
        centre, wide = self.mean * analysis, _REACH * np.sqrt(analysis * self.step)
        limit = z * np.sqrt(analysis * self.step)
        low, high = max(-limit, centre - wide), min(limit, centre + wide)
        if low >= high:  # all of it has crossed
            self.at, self.mass = np.array([0.0]), np.array([0.0])
            return
        at = np.linspace(low, high, _GRID)
        weights = np.full(_GRID, 2.0)
        weights[1::2], weights[[0, -1]] = 4.0, 1.0
        weights *= (at[1] - at[0]) / 3  # Simpson's rule
        steps = (at[:, None] - self.at[None] - self.mean) / scale
        density = np.exp(-0.5 * steps**2) @ self.mass / (scale * np.sqrt(2 * np.pi))
        self.at, self.mass = at, density * weights

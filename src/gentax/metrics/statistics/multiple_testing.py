"""Multiple testing: over targets (Holm's correction) and over time (group-sequential interim analyses).

A 95 % interval that is checked at five interim analyses misses the truth at one of them far more often than in 5 % of
studies. **Repeated confidence intervals** (Jennison & Turnbull 1989) widen each so that all of them together cover the
truth with 95 %: one may stop at any analysis, for any reason, and the interval at hand is valid. The 5 % are divided by
the alpha-spending function of Lan & DeMets (1983) of O'Brien & Fleming's shape, which spends almost nothing early, so
that the final analysis is nearly as good as a single one. Critical values come from the recursion of Armitage,
McPherson & Rowe (1969), integrated numerically; it takes increments to be normal and independent, which holds for means
of paired scores over tasks in a fixed random order except in tiny samples.

Not implemented: stopping for futility, and analysis times that depend on the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from gentax.core.errors import UsageError
from gentax.metrics.statistics.estimate import LEVEL

Key = TypeVar("Key")


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Return p-values adjusted so that the chance of any false finding among them stays at its level (Holm 1979).

    The smallest is multiplied with their number, the next with one less, and so on, none falling below one before it.
    Holds however the tests depend on each other.

    Raises:
        UsageError: a p-value that is NaN or outside [0, 1].
    """
    for key, p in p_values.items():
        if not 0 <= p <= 1:
            raise UsageError(f"the p-value of {key} must lie in [0, 1], not {p}")
    order = sorted(p_values, key=lambda key: p_values[key])
    factors = range(len(order), 0, -1)
    adjusted = np.maximum.accumulate([min(1.0, k * p_values[key]) for key, k in zip(order, factors, strict=True)])
    found = dict(zip(order, map(float, adjusted), strict=True))
    return {key: found[key] for key in p_values}


_GRID = 801  # points at which a density is kept
_REACH = 8.0  # standard deviations that a grid spans to either side at least
_HIGHEST = 6.0  # critical value; one look in 500 million crosses it, which is nothing beside alpha


@dataclass(frozen=True)
class InterimAnalyses:
    """Equally spaced looks at growing data. `count` of 1 is an ordinary study.

    Raises:
        UsageError: no look, or a level outside (0, 1).
    """

    count: int
    level: float = LEVEL

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"a study needs at least 1 look at its data, not {self.count}")
        if not 0 < self.level < 1:
            raise UsageError(f"the level must lie between 0 and 1, not {self.level}")

    def tasks(self, look: int, of: int) -> int:
        """Return how many of `of` tasks are in at `look` (from 1), at least 2."""
        return max(2, round(of * look / self.count))

    def level_at(self, look: int) -> float:
        """Return the level at which the interval at `look` (from 1) must be taken, above `level` before the end."""
        return self.level if self.count == 1 else float(1 - 2 * ndtr(-self.critical[look - 1]))

    @cached_property
    def critical(self) -> tuple[float, ...]:
        """The critical value of a standard normal at each look, falling."""
        return tuple(_critical(self.count, 1 - self.level))

    def power(self, drift: float) -> float:
        """Return the chance that some look excludes 0 when the last look's statistic has mean `drift`."""
        return _crossing(self.critical, drift)

    def drift(self, power: float) -> float:
        """Return the mean of the last look's statistic at which the chance of seeing an effect is `power`."""
        return float(brentq(lambda drift: self.power(drift) - power, 0.0, 20.0))


def _critical(count: int, alpha: float) -> list[float]:
    found: list[float] = []
    kept = _Walk(count, 0.0)
    spent = 0.0
    for look in range(1, count + 1):
        # Lan & DeMets's first function for either side with half of alpha.
        goal = 4 * ndtr(ndtri(alpha / 4) / np.sqrt(look / count)) - spent
        if look == 1:
            z = float(-ndtri(goal / 2))
        else:
            z = float(brentq(lambda z, look=look, goal=goal: kept.outside(look, z) - goal, 0.5, 30.0, xtol=1e-10))
        kept.cut(look, min(z, _HIGHEST))
        found.append(min(z, _HIGHEST))
        spent += goal
    return found


def _crossing(critical: tuple[float, ...], drift: float) -> float:
    walk, total = _Walk(len(critical), drift), 0.0
    for look, z in enumerate(critical, 1):
        total += walk.outside(look, z)
        walk.cut(look, z)
    return float(total)


class _Walk:
    """The density of the sum S_k = Z_k sqrt(k / count) of a study that has not stopped yet, on a grid.

    An increment has variance 1 / count and mean drift / count.
    """

    def __init__(self, count: int, drift: float) -> None:
        self.step, self.mean = 1 / count, drift / count
        self.at = np.array([0.0])
        self.mass = np.array([1.0])  # probability at each point, integration weights included

    def outside(self, look: int, z: float) -> float:
        """Return the chance that the study is still on before `look` and then crosses ±z."""
        limit, scale = z * np.sqrt(look * self.step), np.sqrt(self.step)
        over = ndtr((self.at + self.mean - limit) / scale) + ndtr((-limit - self.at - self.mean) / scale)
        return float(self.mass @ over)

    def cut(self, look: int, z: float) -> None:
        """Go on to `look` and keep what lies within ±z."""
        scale = np.sqrt(self.step)
        centre, wide = self.mean * look, _REACH * np.sqrt(look * self.step)
        limit = z * np.sqrt(look * self.step)
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

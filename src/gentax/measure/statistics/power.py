"""How many episodes a question takes, before any is played.

The normal approximation for a mean of paired differences: n = ((z_level + z_power) / drop)² variance, with the sum of
z's replaced by the drift that a study with several looks needs (Jennison & Turnbull 2000, ch. 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gentax.core.errors import UsageError
from gentax.measure.statistics.sequential import Looks

POWER = 0.8  # the chance of seeing a drop of the size asked for
RATE = 0.3  # success before, where it is not known: the middle of what a policy that is worth training has
PAIRING = 0.3  # correlation of two policies' success on the same tasks, where it is not known


@dataclass(frozen=True)
class Plan:
    """What it takes to see a mean drop over targets."""

    drop: float  # points, mean over targets
    targets: int
    tasks: int  # of each target, at the last look
    looks: int
    power: float
    variance: float  # of one task's difference of success, before - after, mean over targets

    @property
    def episodes(self) -> int:
        """Episodes of one policy on all targets, when it does not stop early."""
        return self.tasks * self.targets


def episodes_needed(
    drop: float, targets: int, looks: Looks, variance: float | None = None, power: float = POWER
) -> Plan:
    """Return how many tasks of each target it takes to see a mean drop of `drop` points with chance `power`.

    Args:
        drop: points of success lost on the mean target; a small one takes many tasks.
        targets: how many domains the mean is over.
        looks: how often the data are looked at.
        variance: of one task's difference of success (0 to 1), mean over targets; `paired_variance` of the rates that
            are likely when None.
        power: the chance of seeing it.

    Raises:
        UsageError: a drop that is not between 0 and 100 points, no target, a power below the level's chance of error or
            not below 1, a variance outside (0, 1].
    """
    if not 0 < drop <= 100:
        raise UsageError(f"the drop to be seen must lie between 0 and 100 points, not {drop:g}")
    _check(targets, looks, power)
    variance = paired_variance() if variance is None else _positive(variance)
    tasks = max(2, int(np.ceil((looks.drift(power) / (drop / 100)) ** 2 * variance / targets)))
    return Plan(drop, targets, tasks, looks.count, power, variance)


def detectable(tasks: int, targets: int, looks: Looks, variance: float | None = None, power: float = POWER) -> float:
    """Return the mean drop, in points, that `tasks` tasks of each target show with chance `power`. Raises as above."""
    _check(targets, looks, power)
    variance = paired_variance() if variance is None else _positive(variance)
    return float(100 * looks.drift(power) * np.sqrt(variance / (tasks * targets)))


def paired_variance(before: float = RATE, after: float | None = None, pairing: float = PAIRING) -> float:
    """Return the variance of one task's difference of success, from two rates and the correlation of outcomes."""
    after = before if after is None else after
    one, other = before * (1 - before), after * (1 - after)
    return one + other - 2 * pairing * float(np.sqrt(one * other))


def _check(targets: int, looks: Looks, power: float) -> None:
    chance = 1 - looks.level
    if targets < 1 or not chance < power < 1:
        raise UsageError(f"a plan needs at least 1 target and a power between {chance:g} and 1, not {targets}, {power}")


def _positive(variance: float) -> float:
    if not 0 < variance <= 1:
        raise UsageError(f"the variance of a task's difference of success lies between 0 and 1, not {variance}")
    return variance

"""Clusters of tasks: tasks with the same content (a room, a product, a recipe set) are no independent evidence.

A domain's tasks fall into clusters; a task that shares its content with no other is a cluster of its own. The variance
of a mean is taken over clusters with the CR2 correction of Bell & McCaffrey (2002), and is known with their
Satterthwaite degrees of freedom (Pustejovsky & Tipton 2018, for a model that is one mean). With clusters of one task
each both are the textbook's: the sample variance over K, with K - 1 degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gentax.core.errors import UsageError

Labels = Sequence[Hashable]  # one for each task; None and "" mark a task whose content is not known


@dataclass(frozen=True, eq=False)
class Clusters:
    """Which of K tasks belong together.

    Raises:
        UsageError: fewer than 2 clusters: then nothing is known of how success varies between contents.
    """

    of_K: np.ndarray  # the number of each task's cluster, from 0

    def __post_init__(self) -> None:
        if self.count < 2:
            raise UsageError(f"{len(self.of_K)} tasks of one and the same content say nothing of others")

    @classmethod
    def of(cls, labels: Labels | None, tasks: int, what: str = "a domain") -> Clusters:
        """Number the clusters of `tasks` tasks. None for each task its own.

        Raises:
            UsageError: a number of labels that is not that of the tasks, or one label for all of them.
        """
        if labels is None:
            return cls(np.arange(tasks))
        if len(labels) != tasks:
            raise UsageError(f"{what} has {tasks} tasks and {len(labels)} cluster labels")
        known: dict[Hashable, int] = {}
        number = [known.setdefault(n if x is None or x == "" else ("", x), len(known)) for n, x in enumerate(labels)]
        return cls(np.array(number, int))

    @cached_property
    def count(self) -> int:
        """Clusters, G."""
        return int(self.of_K.max()) + 1 if len(self.of_K) else 0

    @cached_property
    def shares(self) -> np.ndarray:
        """(G,) the share of the tasks that is in each cluster."""
        return np.bincount(self.of_K, minlength=self.count) / len(self.of_K)

    @cached_property
    def df(self) -> float:
        """Degrees of freedom of the variance: (tr B)² / tr B², B the covariance of the clusters' corrected residuals.

        Under independent tasks of one variance; G - 1 where all clusters have the same size.
        """
        extra_G = self.shares**2 / (1 - self.shares)
        return float(1 / ((self.shares**2).sum() + extra_G.sum() ** 2 - (extra_G**2).sum()))

    @cached_property
    def largest_design_effect(self) -> float:
        """How many times larger the variance of a mean is where all tasks of a cluster have the same outcome."""
        return float(len(self.of_K) * (self.shares**2).sum())

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return (…, G) sums over clusters of values (…, K)."""
        if self.count == len(self.of_K):
            return values if self._in_order else values[..., np.argsort(self.of_K)]
        return np.add.reduceat(values if self._in_order else values[..., self._order], self._starts, axis=-1)

    def scatter(self, residuals: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return (…, R, R), K² times the CR2 covariance of means, from residuals (…, R, K) about those means."""
        one, other = self.sums(residuals), self.sums(others)
        return (one / (1 - self.shares)) @ np.swapaxes(other, -1, -2)

    @cached_property
    def _in_order(self) -> bool:
        return bool((np.diff(self.of_K) >= 0).all())

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(self.of_K, kind="stable")

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.searchsorted(self.of_K[self._order], np.arange(self.count))

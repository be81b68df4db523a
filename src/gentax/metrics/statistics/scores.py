"""What every interval starts from and ends in: scores of policies on the same tasks, and an estimate.

Tasks with the same content are one cluster.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from scipy.special import ndtr, ndtri

from gentax.core.errors import UsageError, unknown
from gentax.core.results import Record

LEVEL = 0.95  # of an interval, unless said otherwise
Z = float(ndtri(0.5 + LEVEL / 2))
TASKS, SEEDS_AND_TASKS, SEEDS = "tasks", "training seeds and tasks", "training seeds"
_TEXT_DIGITS = {"fraction": 2, "points per point": 2}  # unit -> digits after the point, as text
DIGITS = 10  # significant ones that are written to files: sums in another order differ after the fifteenth


def rounded(value: Any) -> Any:
    """Return a float rounded to the digits that are written to files; anything else as it is."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


@dataclass(frozen=True)
class Estimate(Record):
    """A number and its interval."""

    value: float
    low: float
    high: float
    covers: str  # the source of variation: "tasks", "training seeds and tasks", …
    unit: str  # "percent" (of success), "points" (between two percentages), "fraction", "steps", "characters", …
    n: int  # tasks, over all domains involved
    seeds: int = 1  # training seeds
    level: float = LEVEL  # the confidence level

    def contains(self, x: float) -> bool:
        """Return whether the interval contains `x`: whether the data allow it."""
        return self.low <= x <= self.high

    def negated(self) -> Estimate:
        """Return the estimate of the negative: a gain as a loss, or the reverse."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low)

    def p_value(self) -> float:
        """Return the two-sided p-value of 0, read off the 95 % limit that faces 0 (Altman & Bland 2011)."""
        facing = self.value - self.low if self.value > 0 else self.high - self.value
        if self.value == 0 or facing <= 0:
            return float(self.value == 0)
        return float(2 * ndtr(-Z * abs(self.value) / facing))

    def text(self, digits: int, scale: float = 1.0, unit: str = "") -> str:
        """Write the estimate, times `scale`, with its interval and true minus signs, such as `−2.0 (−5.1 to 0.9)`."""
        # + 0.0 makes 0.0 of the -0.0 that small losses are rounded to
        ends = (scale * x for x in (self.value, self.low, self.high))
        value, low, high = (f"{round(x, digits) + 0.0:.{digits}f}" for x in ends)
        return f"{value}{unit} ({low} to {high})".replace("-", "\N{MINUS SIGN}")

    def __str__(self) -> str:
        return self.text(_TEXT_DIGITS.get(self.unit, 1))

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as JSON values, numbers to ten digits, so that they are the same on every machine."""
        return {key: rounded(value) for key, value in vars(self).items()}


@dataclass(frozen=True)
class Undefined:
    """A measure without a value, and why. It is false: `if report.tax: …` asks whether there is a number."""

    reason: str

    def __bool__(self) -> Literal[False]:
        return False

    def __str__(self) -> str:
        return f"undefined: {self.reason}"

    def to_json(self) -> None:
        """Return null, as which it is written."""
        return None


Labels = Sequence[Hashable]  # one for each task; None and "" mark a task whose content is not known


@dataclass(frozen=True, eq=False)
class TaskClusters:
    """The clusters that K tasks belong to.

    Raises:
        UsageError: fewer than 2 clusters: then the variance between contents cannot be estimated.
    """

    index_K: np.ndarray  # each task's cluster, from 0

    def __post_init__(self) -> None:
        if self.count < 2:
            raise UsageError(f"{len(self.index_K)} tasks of one and the same content say nothing about others")

    @classmethod
    def of(cls, labels: Labels | None, tasks: int, what: str = "a domain") -> TaskClusters:
        """Number the clusters of `tasks` tasks; without labels each task is its own cluster.

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
        return int(self.index_K.max()) + 1 if len(self.index_K) else 0

    @cached_property
    def shares(self) -> np.ndarray:
        """(G,) the share of the tasks that is in each cluster."""
        return np.bincount(self.index_K, minlength=self.count) / len(self.index_K)

    @cached_property
    def df(self) -> float:
        """Degrees of freedom of the variance: (tr B)² / tr B², B the covariance of the clusters' corrected residuals.

        Under independent tasks of one variance; G - 1 where all clusters have the same size.
        """
        extra_G = self.shares**2 / (1 - self.shares)
        return float(1 / ((self.shares**2).sum() + extra_G.sum() ** 2 - (extra_G**2).sum()))

    @cached_property
    def max_design_effect(self) -> float:
        """How many times larger the variance of a mean is where all tasks of a cluster have the same outcome."""
        return float(len(self.index_K) * (self.shares**2).sum())

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return (…, G) sums over clusters of values (…, K)."""
        if self.count == len(self.index_K):
            return values if self._in_order else values[..., np.argsort(self.index_K)]
        return np.add.reduceat(values if self._in_order else values[..., self._order], self._starts, axis=-1)

    def scatter(self, residuals: np.ndarray) -> np.ndarray:
        """Return (…, R, R), K² times the CR2 covariance of means, from residuals (…, R, K) about those means."""
        sums = self.sums(residuals)
        return (sums / (1 - self.shares)) @ np.swapaxes(sums, -1, -2)

    @cached_property
    def _in_order(self) -> bool:
        return bool((np.diff(self.index_K) >= 0).all())

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(self.index_K, kind="stable")

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.searchsorted(self.index_K[self._order], np.arange(self.count))


Weights = Mapping[tuple[str, str], float]  # (role, domain) -> weight of that mean score


@dataclass(frozen=True)
class Scores:
    """Scores in [0, 1] of several policies on the same test tasks.

    `roles` maps a role ("init", "after", an arm's name) to domain to an array (S, K): training seeds by tasks. Every
    role has the same tasks, in the same order, on a domain; domains may differ in K, and roles in S. `fixed` are the
    roles that no training seed stands behind (the base policy), where S is 1. A score is a success, or a mean over
    samples of a task (avg@k). `clusters` maps a domain to a label (K,) for each task: tasks with the same label share
    their content and are one cluster. A domain that is not in it, and a label of None or "", has tasks of their own.

    Raises:
        UsageError: a score that is NaN or outside [0, 1], tasks that do not pair, fewer than 2 tasks or 2 clusters,
            labels of other domains or of another number of tasks, no data.
    """

    roles: Mapping[str, Mapping[str, np.ndarray]]
    fixed: frozenset[str] = frozenset({"init", "chance"})
    clusters: Mapping[str, Labels] | None = None
    _clusters: dict[str, TaskClusters] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tasks: dict[str, int] = {}
        for role, domains in self.roles.items():
            seeds = {d: check_scores(scores_SK, f"{role} on {d}").shape for d, scores_SK in domains.items()}
            if len({s for s, _ in seeds.values()}) > 1:
                raise UsageError(f"{role} must have the same training seeds on every domain, not {seeds}")
            for domain, (count, tasks_K) in seeds.items():
                if role in self.fixed and count != 1:
                    raise UsageError(f"{role} is one policy: one row of scores on {domain}, not {count}")
                if tasks.setdefault(domain, tasks_K) != tasks_K:
                    raise UsageError(f"tasks must pair: {role} has {tasks_K} on {domain}, others {tasks[domain]}")
        for domain in self.clusters or ():
            if domain not in tasks:
                raise unknown("domain that clusters are given for", domain, tasks)
        labels = self.clusters or {}
        self._clusters.update({d: TaskClusters.of(labels.get(d), count, d) for d, count in tasks.items()})

    @classmethod
    def of(cls, *, clusters: Mapping[str, Labels] | None = None, **roles: Mapping[str, np.ndarray]) -> Scores:
        """Make scores from arrays (K,) or (S, K); the roles `init` and `chance` (random play) are fixed."""
        arrays = {r: {d: np.atleast_2d(np.asarray(x, float)) for d, x in ds.items()} for r, ds in roles.items()}
        return cls(arrays, clusters=clusters)

    def clusters_of(self, domain: str) -> TaskClusters:
        """Return the clusters of a domain's tasks."""
        return self._clusters[domain]

    def mean(self, weights: Weights) -> float:
        """Return the weighted sum of mean scores."""
        return float(sum(w * self.roles[r][d].mean() for (r, d), w in weights.items()))


def check_scores(scores_SK: np.ndarray, what: str) -> np.ndarray:
    """Return `scores_SK` when it is (S, K), K at least 2, of finite scores in [0, 1]; raise UsageError otherwise."""
    if scores_SK.ndim != 2 or scores_SK.shape[0] < 1 or scores_SK.shape[1] < 2:
        raise UsageError(f"{what} needs scores of at least 2 tasks, seeds by tasks, not shape {scores_SK.shape}")
    if not np.isfinite(scores_SK).all():
        raise UsageError(f"{what}: scores hold NaN or infinity; leave out episodes that ended in an error first")
    if scores_SK.min() < 0 or scores_SK.max() > 1:
        raise UsageError(f"{what}: scores must lie in [0, 1]; these reach {scores_SK.min():g} to {scores_SK.max():g}")
    return scores_SK

"""Scores of policies on the same tasks, the variance of weighted sums of their means, and estimates with intervals.

Tasks with the same content are one cluster.

**Model.** A score is a task effect + a seed effect + their interaction. Domains are fixed. Tasks are paired: every
policy played the same ones. There are two kinds of component: *tasks*, one for each domain, from the spread over its
clusters of tasks of the weighted sum of their scores (the pairing is in that sum), and *training seeds*, one for each
trained role, from the spread over seeds of the weighted sum of each seed's means. A seed that moves all targets
together is in that sum as it is. The interaction is in both kinds and is subtracted from the tasks', which is estimated
better. That is two-way clustering (Cameron, Gelbach & Miller 2011, eq. 2.11) with CR2 corrections (Bell & McCaffrey
2002). With one seed its component cannot be estimated: the interval covers tasks only, as in Miller (2024, arXiv
2411.00640), and says so.

**Margin.** Components of one kind are pooled with Satterthwaite's (1946) degrees of freedom: thousands of tasks have a
quantile of Student's t of 1.96, three seeds, with 2 degrees of freedom, one of 4.3. The two kinds are combined by
Cochran & Cox's (1950) quantile, the mean of the two weighted by variance: at three seeds it covers 95.6 to 97.9 %,
whichever kind dominates, where Satterthwaite's over both, which is shorter, covers 91.8 to 95.8 %
(`benchmarks/coverage.py`, which compares both with Banerjee's and Welch's).

**Rates of 0 or 1.** The spread of identical scores is 0, which is not what is known about the rate. So the
variance is taken with two pseudo-tasks on which each outcome of a pair is as likely as any other (Agresti & Min 2005;
with several seeds, each outcome of all of them), shared between the domains of a sum (Price & Bonett 2004), each as
large as an effective task (Korn & Graubard 1998). The estimate itself stays the plain one.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

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


# --- the variance of a weighted sum of mean scores ---

PSEUDO = 2.0  # tasks, in all domains of a sum together


@dataclass(frozen=True)
class VarianceComponents:
    """The variance of J weighted sums as P independent components. Leading axes, where there are any, are studies."""

    covariance_PJJ: np.ndarray
    df_P: np.ndarray  # degrees of freedom of each component
    of_seeds_P: np.ndarray  # bool: a component of training seeds

    def margin(self, weights_J: Sequence[float] | np.ndarray, level: float) -> np.ndarray:
        """Return the margin of a combination of the sums at `level`."""
        return margin(self.variance(weights_J), self.df_P, self.of_seeds_P, level)

    def variance(self, weights_J: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return (…, P) the variance of a combination (J,) or (…, J) of the sums, by component."""
        weights = np.asarray(weights_J, float)
        return np.einsum("...j,...pjk,...k->...p", weights, self.covariance_PJJ, weights)


def margin(variance_P: np.ndarray, df_P: np.ndarray, of_seeds_P: np.ndarray, level: float) -> np.ndarray:
    """Return half the length of the interval of a mean whose variance is Σ variance_P; leading axes stay."""
    variance_P = np.maximum(variance_P, 0.0)  # rounding
    kinds = [pooled(variance_P[..., kind], df_P[kind]) for kind in (~of_seeds_P, of_seeds_P) if kind.any()]
    if len(kinds) == 1:
        ((variance, df),) = kinds
        return t_quantile(df, level) * np.sqrt(variance)
    (tasks, tasks_df), (seeds, seeds_df) = kinds
    total = tasks + seeds
    weighted = t_quantile(tasks_df, level) * tasks + t_quantile(seeds_df, level) * seeds
    return weighted / np.sqrt(np.where(total > 0, total, 1.0))


def pooled(variance_P: np.ndarray, df_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of variances and its degrees of freedom (Satterthwaite 1946)."""
    total = variance_P.sum(-1)
    squares = (variance_P**2 / df_P).sum(-1)
    known = squares > 0
    return total, np.where(known, total**2 / np.where(known, squares, 1.0), df_P.max())


def t_quantile(df: np.ndarray | float, level: float) -> np.ndarray:
    """Return the two-sided critical value of Student's t; infinite df is the normal distribution."""
    if not 0 < level < 1:
        raise UsageError(f"the level of an interval must lie between 0 and 1, not {level}")
    return stdtrit(np.minimum(df, 1e9), 0.5 + level / 2)


def variance_components(scores: Scores, forms: Sequence[Weights]) -> VarianceComponents:
    """Return the variance of weighted sums of mean scores, a component for each domain and each trained role.

    Raises:
        UsageError: weights for an unknown role or domain.
    """
    keys = sorted({key for form in forms for key in form})
    if not keys:
        raise UsageError("a sum of scores needs at least one role and domain")
    for role, domain in keys:
        if role not in scores.roles:
            raise unknown("role", role, scores.roles)
        if domain not in scores.roles[role]:
            raise unknown(f"domain of {role}", domain, scores.roles[role])
    clusters = {d: scores.clusters_of(d) for _, d in keys}
    return variance_components_of({(r, d): scores.roles[r][d] for r, d in keys}, clusters, forms, scores.fixed)


def variance_components_of(
    scores: Mapping[tuple[str, str], np.ndarray],
    clusters: Mapping[str, TaskClusters],
    forms: Sequence[Weights],
    fixed: frozenset[str],
) -> VarianceComponents:
    """Return the variance of weighted sums of mean scores, of one study or of many at once.

    Args:
        scores: (role, domain) -> (…, S, K); leading axes are studies.
        clusters: domain -> its clusters.
        forms: the weighted sums.
        fixed: roles without training seeds.
    """
    keys = sorted(scores)  # sums in one order, the same digits everywhere
    components: list[np.ndarray] = []
    df: list[float] = []
    domains = sorted({d for _, d in keys})
    for domain in domains:
        roles = [r for r, d in keys if d == domain]
        weights_JR = np.array([[form.get((r, domain), 0.0) for r in roles] for form in forms])
        means_RK = np.stack([scores[r, domain].mean(-2) for r in roles], axis=-2)
        mixed_R = np.stack([interaction_variance(scores[r, domain], clusters[domain]) for r in roles], axis=-1)
        seeds_R = np.array([scores[r, domain].shape[-2] for r in roles])
        spread, least = paired_covariance(means_RK, seeds_R, clusters[domain], PSEUDO / len(domains))
        variance = weights_JR @ (spread - least - mixed_R[..., None] * np.eye(len(roles))) @ weights_JR.T
        size, axes = np.linalg.eigh(variance)  # at least 0 in every direction, which chance might make it miss
        floor = (axes * np.maximum(size, 0.0)[..., None, :]) @ np.swapaxes(axes, -1, -2)
        components.append(floor + weights_JR @ least @ weights_JR.T)
        df.append(clusters[domain].df)
    for role in sorted({r for r, _ in keys} - fixed):
        of_role = [d for r, d in keys if r == role]
        seeds = scores[role, of_role[0]].shape[-2]
        if seeds < 2:
            continue
        weights_JD = np.array([[form.get((role, d), 0.0) for d in of_role] for form in forms])
        sums_JS = weights_JD @ np.stack([scores[role, d].mean(-1) for d in of_role], axis=-2)
        centred_JS = sums_JS - sums_JS.mean(-1, keepdims=True)
        components.append(centred_JS @ np.swapaxes(centred_JS, -1, -2) / (seeds - 1) / seeds)
        df.append(seeds - 1)
    of_seeds = np.arange(len(df)) >= len(domains)
    return VarianceComponents(np.stack(components, axis=-3), np.array(df, float), of_seeds)


def interaction_variance(scores_SK: np.ndarray, clusters: TaskClusters) -> np.ndarray:
    """Return the variance of the mean score (…, S, K) that is due to the interaction of seeds and clusters of tasks.

    0 with one seed, which cannot tell it.
    """
    seeds, tasks = scores_SK.shape[-2:]
    if seeds < 2:
        return np.zeros(scores_SK.shape[:-2])
    rest = scores_SK - scores_SK.mean(-2, keepdims=True)
    rest = rest - rest.mean(-1, keepdims=True)
    sums_SG = clusters.sums(rest)
    return (sums_SG**2 / (1 - clusters.shares)).sum((-2, -1)) / ((seeds - 1) * seeds * tasks**2)


def paired_covariance(
    scores_RK: np.ndarray, seeds_R: np.ndarray, clusters: TaskClusters, pseudo: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the covariance (…, R, R) of the mean scores of paired policies, pseudo-tasks included.

    And what of it there would be if all scores were alike: a share that the interaction cannot take off.

    Args:
        scores_RK: (…, R, K), policies by tasks, means over training seeds.
        seeds_R: how many seeds each is the mean of: a pseudo-task is played by each of them.
        clusters: of the tasks.
        pseudo: how many effective tasks are added.
    """
    count = scores_RK.shape[-1]
    rates = scores_RK.mean(-1, keepdims=True)
    centred = scores_RK - rates
    scatter = clusters.scatter(centred)
    design = design_effect(centred, clusters)[..., None, None]
    weight = pseudo * design  # in tasks
    # Pseudo-tasks have mean 1/2 and variance 1/4 a play; both they and the tasks move about their common mean.
    least = design * weight * 0.25 * np.diag(1 / seeds_R)
    middle = rates - 0.5
    moved = design * (count * weight / (count + weight)) * (middle @ np.swapaxes(middle, -1, -2))
    total = (count + weight) ** 2
    return (scatter + least + moved) / total, least / total


def design_effect(centred_RK: np.ndarray, clusters: TaskClusters) -> np.ndarray:
    """Return how many times more a mean varies than if tasks were independent: from 1 to what is possible.

    That of the differences between policies, where there are several. Where no score differs from another it is the
    largest that is possible.
    """
    if centred_RK.shape[-2] > 1:
        centred_RK = centred_RK - centred_RK.mean(-2, keepdims=True)
    tasks = centred_RK.shape[-1]
    independent = (centred_RK**2).sum((-2, -1)) * tasks / (tasks - 1)
    clustered = (clusters.sums(centred_RK) ** 2 / (1 - clusters.shares)).sum((-2, -1))
    known, largest = independent > 0, clusters.max_design_effect
    return np.where(known, np.clip(clustered / np.where(known, independent, 1.0), 1.0, largest), largest)

"""Confidence intervals and paired tests: from scores on the same tasks to a number with 95 % limits, and a p-value.

Everything gentax reports is a weighted sum of mean scores (a difference of success rates) or a ratio of two such sums
(a tax). Their intervals are closed formulae on the margin that `scores` describes.

**Ratios** of either sign: Fieller (1954), the values R for which numerator - R x denominator is not told apart from 0.
Unlike the delta method it is right when the denominator is noisy, and not finite when the denominator may be 0.

**Rate ratios**, of two sums of success: the limits of their logarithm (Katz, Baptista, Azen & Pike 1978). Where seeds
differ much and success is low, Fieller's limits report a loss that is not there in 7 % of studies, these in under 5 %.

**Single rates** get Wilson's (1927) score interval with the effective number of tasks (Korn & Graubard 1998).

**Ratios over tasks**, such as invalid actions to actions: actions of one task are correlated, so the task is the unit
of the variance (Cochran 1977, section 6.3). A share has Wilson's interval with the effective number of tasks; one task
of all and one of none are added to the variance, so that it is not 0 when all tasks agree. Others have Fieller's.
The interval of a change combines those of both policies with the correlation of their residuals over tasks (Newcombe
1998 for paired proportions; Zou & Donner 2008 for any two estimates).

**The interquartile mean and the probability of improvement** have no closed interval. They are taken over runs, seeds
by domains, as `rliable` does (Agarwal et al. 2021, arXiv 2108.13264), with percentile intervals of the stratified
bootstrap: seeds are drawn for each domain by itself. These are too short for few seeds: three values resampled have no
more spread than three values. No verdict rests on them; they are here because the field compares runs by them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import trim_mean

from gentax.core.errors import UsageError
from gentax.metrics.statistics.scores import (
    LEVEL,
    SEEDS,
    SEEDS_AND_TASKS,
    TASKS,
    Estimate,
    Labels,
    Scores,
    TaskClusters,
    VarianceComponents,
    Weights,
    Z,
    check_scores,
    interaction_variance,
    margin,
    t_quantile,
    variance_components,
)

SMALLEST_P = 1e-12
_LARGEST_LOG_P = -1e-9
REPLICATES = 10_000  # of the bootstrap
TRIM = 0.25  # of the runs at either end, for the interquartile mean


def success_rate(scores: np.ndarray, level: float = LEVEL, clusters: Labels | None = None) -> Estimate:
    """Estimate a success rate, in percent, from scores (K,) or (S, K) in [0, 1].

    Rates of 0 and 1 have an interval like any other. `clusters` has a label for each task: equal ones share their
    content. Raises UsageError for fewer than 2 tasks or clusters, NaN, scores outside [0, 1].
    """
    scores_SK = check_scores(np.atleast_2d(np.asarray(scores, float)), "a success rate")
    covers = SEEDS_AND_TASKS if len(scores_SK) > 1 else TASKS
    return _wilson(scores_SK, TaskClusters.of(clusters, scores_SK.shape[1]), 100.0, "percent", covers, level)


def bounded_mean(values: np.ndarray, upper: float, unit: str, level: float = LEVEL) -> Estimate:
    """Estimate the mean of values (K,), one for each task, that lie in [0, upper], such as lengths up to the horizon.

    Wilson's interval on values / upper, so that it does not collapse when all values are alike.
    """
    scores_1K = check_scores(np.atleast_2d(np.asarray(values, float) / upper), f"a mean of {unit}")
    return _wilson(scores_1K, TaskClusters.of(None, scores_1K.shape[1]), upper, unit, TASKS, level)


def cluster_mean(sums: np.ndarray, counts: np.ndarray, unit: str, level: float = LEVEL) -> Estimate:
    """Estimate a mean over states (or any units) that come in tasks: Σ sums / Σ counts, both (K,), K at least 2.

    The ratio estimator of cluster sampling (Cochran 1977, eq. 6.9 and 6.13) with Student's t: states of one task are
    much alike, so it is tasks that count.
    """
    sums, counts = np.asarray(sums, float), np.asarray(counts, float)
    tasks = len(sums)
    if tasks < 2 or counts.shape != sums.shape or not np.isfinite(sums).all() or not (counts > 0).all():
        raise UsageError(f"a mean of {unit} needs finite sums and positive counts of at least 2 tasks, not {tasks}")
    value = float(sums.sum() / counts.sum())
    deviation = np.sqrt(((sums - value * counts) ** 2).sum() / (tasks - 1) / tasks) / counts.mean()
    half = float(t_quantile(tasks - 1, level) * deviation)
    return Estimate(value, value - half, value + half, TASKS, unit, tasks, level=level)


def difference(before: np.ndarray, after: np.ndarray, level: float = LEVEL, clusters: Labels | None = None) -> Estimate:
    """Estimate after - before in points, paired by task, from scores (K,) and (K,) or (S, K)."""
    scores = Scores.of(init={"": before}, after={"": after}, clusters=None if clusters is None else {"": clusters})
    return linear_combination(scores, {("after", ""): 100.0, ("init", ""): -100.0}, "points", level)


def linear_combination(scores: Scores, weights: Weights, unit: str, level: float = LEVEL) -> Estimate:
    """Estimate Σ weight(role, domain) x mean score(role, domain)."""
    half = float(variance_components(scores, [weights]).margin([1.0], level))
    value = scores.mean(weights)
    return Estimate(value, value - half, value + half, unit=unit, level=level, **coverage(scores, weights))


def ratio(
    scores: Scores, numerator: Weights, denominator: Weights, unit: str = "fraction", level: float = LEVEL
) -> Estimate | None:
    """Estimate a ratio of two weighted sums by Fieller's (1954) interval.

    Its limits are the R nearest to the estimate for which |N - R D| equals the margin of N - R D. Returns None when
    the denominator is not told apart from 0: then the interval is not finite, and no ratio is worth printing.
    """
    top, bottom = scores.mean(numerator), scores.mean(denominator)
    limits = fieller(top, bottom, variance_components(scores, [numerator, denominator]), level)
    if limits is None:
        return None
    return Estimate(top / bottom, *limits, unit=unit, level=level, **coverage(scores, {**numerator, **denominator}))


def rate_ratio_limits(top: float, bottom: float, known: VarianceComponents, level: float) -> tuple[float, float] | None:
    """Return the limits of top / bottom, two sums of success, from their joint variance; None where bottom may be 0.

    They are symmetric in the logarithm. Where the numerator is not told apart from 0 its logarithm means little, and
    the limits are Fieller's, from 0 on.
    """
    if bottom <= known.margin([0.0, 1.0], level):
        return None
    value = top / bottom
    if top > known.margin([1.0, 0.0], level):
        factor = float(np.exp(known.margin([1.0, -value], level) / top))
        return value / factor, value * factor
    low, high = fieller(top, bottom, known, level) or (0.0, np.inf)
    return max(low, 0.0), high


def above_chance(
    success: np.ndarray, random: np.ndarray, level: float = LEVEL, clusters: Labels | None = None
) -> Estimate | None:
    """Estimate (success - random) / (1 - random), in percent of what random play leaves to be won.

    0 is as good as random play on the same tasks, below 0 worse. It is 1 - a ratio of two rates of failure, so its
    interval is Fieller's. None where random play may succeed always. `success` is (K,) or (S, K), `random` (K,).
    """
    fails, random_fails = 1 - np.asarray(success, float), 1 - np.asarray(random, float)
    labels = None if clusters is None else {"": clusters}
    scores = Scores.of(after={"": fails}, chance={"": random_fails}, clusters=labels)
    failing = ratio(scores, {("after", ""): 1.0}, {("chance", ""): 1.0}, level=level)
    if failing is None:
        return None
    value, low, high = (100 * (1 - x) for x in (failing.value, failing.high, failing.low))
    return replace(failing, value=value, low=low, high=min(high, 100.0), unit="percent")


def above_chance_tax(scores: Scores, domains: Sequence[str], level: float = LEVEL) -> Estimate | None:
    """Estimate 1 - Σ above chance after / Σ above chance before, over `domains`, as a fraction.

    `scores` needs the roles `init`, `after` and `chance`. Fieller's interval of the ratio of the two sums, each of
    which is linear in success to first order in random play's rate (the delta method). None where the sum before is
    not told apart from 0, or random play always succeeds in a domain.
    """
    top, bottom = 0.0, 0.0
    lost: dict[tuple[str, str], float] = {}
    held: dict[tuple[str, str], float] = {}
    for domain in domains:
        before, after, random = (float(scores.roles[role][domain].mean()) for role in ("init", "after", "chance"))
        room = 1 - random
        if room <= 0:
            return None
        top += (before - after) / room
        bottom += (before - random) / room
        lost |= {("init", domain): 1 / room, ("after", domain): -1 / room}
        lost["chance", domain] = (before - after) / room**2
        held |= {("init", domain): 1 / room, ("chance", domain): -(1 - before) / room**2}
    limits = fieller(top, bottom, variance_components(scores, [lost, held]), level)
    if limits is None or bottom < 0:
        return None
    return Estimate(top / bottom, *limits, unit="fraction", level=level, **coverage(scores, lost))


def fieller(top: float, bottom: float, known: VarianceComponents, level: float) -> tuple[float, float] | None:
    """Return Fieller's limits of top / bottom, whose joint variance is `known`; None where bottom may be 0."""
    if abs(bottom) <= known.margin([0.0, 1.0], level):
        return None
    value = top / bottom

    def outside(r: float) -> float:
        return abs(top - r * bottom) - float(known.margin([1.0, -r], level))

    def limit(sign: int) -> float:
        step = max(float(known.margin([1.0, -value], level)) / abs(bottom), 1e-9)
        while outside(value + sign * step) <= 0:  # ends: far out it grows by |bottom| - margin(bottom) > 0 a unit
            step *= 2
        return float(brentq(outside, value, value + sign * step, xtol=1e-12))

    return limit(-1), limit(+1)


def p_value(scores: Scores, weights: Weights) -> float:
    """Return the two-sided p-value of "the weighted sum is 0".

    It agrees with `linear_combination`: p is below 0.05 exactly when the 95 % interval does not contain 0.
    """
    value, known = abs(scores.mean(weights)), variance_components(scores, [weights])
    return p_value_of(lambda level: value - float(known.margin([1.0], level)))


def p_value_of(excess: Callable[[float], float]) -> float:
    """Return 1 - the highest level at which an interval leaves out what is tested, which is where `excess` is 0.

    Args:
        excess: how far it lies outside the interval of a level, negative inside.
    """

    def beyond(log_p: float) -> float:
        return excess(float(-np.expm1(log_p)))

    if beyond(_LARGEST_LOG_P) <= 0:  # 0, or what rounding makes of it
        return 1.0
    if beyond(np.log(SMALLEST_P)) >= 0:
        return SMALLEST_P
    return float(np.exp(brentq(beyond, np.log(SMALLEST_P), _LARGEST_LOG_P, xtol=1e-10)))


def _wilson(
    scores_SK: np.ndarray, clusters: TaskClusters, scale: float, unit: str, covers: str, level: float
) -> Estimate:
    seeds, tasks = scores_SK.shape
    rate = float(scores_SK.mean())
    mean_1K = scores_SK.mean(0, keepdims=True) - rate
    # K / design effect tasks are as good as K of independent content: the design effect has K - 1 above and below.
    spread = float(clusters.scatter(mean_1K)[0, 0]) / tasks**2 * (1 - 1 / tasks)
    few = (
        float(t_quantile(clusters.df, level) / t_quantile(tasks - 1, level)) ** 2
    )  # Korn & Graubard's, for few clusters
    variance, df = [few * max(spread - float(interaction_variance(scores_SK, clusters)), 0.0)], [np.inf]
    if seeds > 1:
        variance.append(float(scores_SK.mean(1).var(ddof=1)) / seeds)
        df.append(seeds - 1.0)
    z = float(t_quantile(np.inf, level))
    squared = float(margin(np.array(variance), np.array(df), np.arange(len(df)) > 0, level)) ** 2
    # No more is known than from as many independent scores (Parker et al. 2017): chance may take all of the tasks'
    # variance off as interaction.
    squared = max(squared, z**2 * scores_SK.var() / scores_SK.size)
    # Wilson's z² / n, n the effective number of tasks; that of clusters where no score differs from another.
    h = squared / (rate * (1 - rate)) if squared > 0 else z**2 / clusters.count
    low, high = wilson_limits(rate, h)
    return Estimate(rate * scale, low * scale, high * scale, covers, unit, tasks, seeds, level)


def wilson_limits(rate: float, h: float) -> tuple[float, float]:
    """Return Wilson's limits of a rate; h is z² over the number of independent trials."""
    middle = (rate + h / 2) / (1 + h)
    half = np.sqrt(rate * (1 - rate) * h + h**2 / 4) / (1 + h)
    # Rounding may put a limit an ulp past the rate itself, or past 0 and 1.
    return float(min(max(middle - half, 0.0), rate)), float(max(min(middle + half, 1.0), rate))


def coverage(scores: Scores, weights: Weights) -> dict[str, Any]:
    """Return the source of variation that an interval covers, and its number of tasks and seeds."""
    trained = sorted({r for r, _ in weights} - scores.fixed)
    seeds = min((len(next(iter(scores.roles[r].values()))) for r in trained), default=1)
    used = {d: scores.roles[r][d].shape[1] for r, d in weights}
    return {"covers": SEEDS_AND_TASKS if seeds > 1 else TASKS, "n": sum(used.values()), "seeds": seeds}


# --- ratios of sums over tasks, for one policy and for the change between two on the same tasks ---


@dataclass(frozen=True)
class TaskRatio:
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

    def estimate(self) -> Estimate | None:
        """Return Σ numerator / Σ denominator with its 95 % interval (a share in percent); None without a finite one.

        A ratio that is the same on every task, such as replies of three tokens each, has an interval without width
        (`low == high`): the tasks show no spread to make one of.
        """
        tasks = int(np.count_nonzero(self.denominator_K))
        if tasks < 2:
            return None
        value = float(self.numerator_K.sum() / self.denominator_K.sum())
        low, high = self._wilson(value) if self.share else self._fieller(value)
        if not np.isfinite([low, high]).all():
            return None
        scale = 100.0 if self.share else 1.0
        return Estimate(scale * value, scale * low, scale * high, TASKS, self.unit, tasks)

    def change(self, after: TaskRatio) -> Estimate | None:
        """Return after - self, paired by task, a share in points; None when either has no finite interval.

        The interval combines theirs with their correlation (Zou & Donner 2008). Raises UsageError for tasks that do not
        pair.
        """
        if self.unit != after.unit or len(self.numerator_K) != len(after.numerator_K):
            raise UsageError("a change needs the same measure of the same tasks before and after")
        first, second = self.estimate(), after.estimate()
        if first is None or second is None:
            return None
        correlation = self._correlation(after)

        def half(a: float, b: float) -> float:
            return float(np.sqrt(max(a**2 + b**2 - 2 * correlation * a * b, 0.0)))

        value = second.value - first.value
        low = value - half(second.value - second.low, first.high - first.value)
        high = value + half(second.high - second.value, first.value - first.low)
        unit = "points" if self.share else self.unit
        return Estimate(value, low, high, TASKS, unit, min(first.n, second.n))

    @property
    def _size(self) -> float:
        """The mean denominator of the tasks that have one: the size of the tasks added to a share's variance."""
        return float(self.denominator_K.sum() / max(1, np.count_nonzero(self.denominator_K)))

    @property
    def _centre(self) -> float:
        """The ratio about which residuals are taken; that of a share includes two tasks, one of all and one of none."""
        more = self._size if self.share else 0.0
        return float((self.numerator_K.sum() + more) / (self.denominator_K.sum() + 2 * more))

    def _residuals(self) -> np.ndarray:
        return np.asarray(self.numerator_K - self._centre * self.denominator_K)

    def _wilson(self, value: float) -> tuple[float, float]:
        size, total, centre = self._size, self.denominator_K.sum(), self._centre
        spread = (self._residuals() ** 2).sum() + size**2 * (centre**2 + (1 - centre) ** 2)
        variance = spread / (total + 2 * size) / total
        return wilson_limits(value, Z**2 * variance / (centre * (1 - centre)))

    def _fieller(self, value: float) -> tuple[float, float]:
        """Solve (T - R B)² = t² (V_TT - 2 R V_TB + R² V_BB) for R, with T and B the mean top and bottom."""
        tasks = len(self.numerator_K)
        top, bottom = self.numerator_K.mean(), self.denominator_K.mean()
        spread = t_quantile(tasks - 1, LEVEL) ** 2 * np.cov(self.numerator_K, self.denominator_K) / tasks
        a, b, c = bottom**2 - spread[1, 1], top * bottom - spread[0, 1], top**2 - spread[0, 0]
        if (self._residuals() ** 2).sum() <= 1e-12 * (self.numerator_K**2).sum():  # the same on every task
            return value, value
        if a <= 0:
            return -np.inf, np.inf
        root = np.sqrt(max(b * b - a * c, 0.0))
        return float((b - root) / a), float((b + root) / a)

    def _correlation(self, after: TaskRatio) -> float:
        """Return the correlation of residuals over tasks; 0 where one side has none.

        Of a share with half a task added for each of the four pairs of all and nothing (Agresti & Min 2005), so that
        two policies that did exactly the same on every task are not taken to differ by exactly 0 on all others.
        """
        pairs = np.stack([self._residuals(), after._residuals()])
        weights = np.ones(pairs.shape[1])
        if self.share:
            (all_before, none_before), (all_after, none_after) = (
                (of._size * (1 - of._centre), -of._size * of._centre) for of in (self, after)
            )
            ends = [[all_before, all_before, none_before, none_before], [all_after, none_after, all_after, none_after]]
            pairs, weights = np.hstack([pairs, ends]), np.append(weights, np.full(4, 0.5))
        (v_aa, v_ab), (_, v_bb) = (weights * pairs) @ pairs.T
        return float(v_ab / np.sqrt(v_aa * v_bb)) if v_aa > 0 and v_bb > 0 else 0.0


# --- what has no closed interval, by resampling ---


def iqm(runs_SD: np.ndarray, rng: np.random.Generator, replicates: int = REPLICATES, level: float = LEVEL) -> Estimate:
    """Estimate the interquartile mean of runs, in percent: the mean of what is left without the best and worst quarter.

    `runs_SD` is the success of each training run on each domain, in [0, 1]. Raises UsageError for fewer than 2 seeds,
    NaN, success outside [0, 1].
    """
    runs_SD = _check_runs(runs_SD, "the interquartile mean")

    def trimmed(runs_BSD: np.ndarray) -> np.ndarray:
        return np.asarray(trim_mean(runs_BSD.reshape(len(runs_BSD), -1), TRIM, axis=1))

    return _percentiles(trimmed, [runs_SD], rng, replicates, level, 100.0, "percent")


def probability_of_improvement(
    arm_SD: np.ndarray,
    plain_SD: np.ndarray,
    rng: np.random.Generator,
    replicates: int = REPLICATES,
    level: float = LEVEL,
) -> Estimate:
    """Estimate the chance that a run of an arm does better than a plain one, averaged over domains; ties are half.

    Both are as for `iqm`, on the same domains; seeds may be others and another number. Raises likewise.
    """
    pair = [_check_runs(runs, "the probability of improvement") for runs in (arm_SD, plain_SD)]
    if pair[0].shape[1] != pair[1].shape[1]:
        raise UsageError(f"arm and plain must have the same domains, not {pair[0].shape[1]} and {pair[1].shape[1]}")

    def better(arm_BSD: np.ndarray, plain_BSD: np.ndarray) -> np.ndarray:
        arm, plain = arm_BSD[:, :, None], plain_BSD[:, None]
        return np.asarray(((arm > plain) + 0.5 * (arm == plain)).mean((1, 2, 3)))

    return _percentiles(better, pair, rng, replicates, level, 1.0, "fraction")


def _percentiles(
    statistic: Callable[..., np.ndarray],
    samples: list[np.ndarray],
    rng: np.random.Generator,
    replicates: int,
    level: float,
    scale: float,
    unit: str,
) -> Estimate:
    def resample(runs_SD: np.ndarray) -> np.ndarray:
        drawn_BSD = rng.integers(len(runs_SD), size=(replicates, *runs_SD.shape))
        return np.take_along_axis(runs_SD[None], drawn_BSD, axis=1)

    value = float(statistic(*(runs_SD[None] for runs_SD in samples))[0])
    drawn = statistic(*map(resample, samples))
    low, high = (float(x) * scale for x in np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]))
    seeds, domains = min(map(len, samples)), samples[0].shape[1]
    return Estimate(value * scale, low, high, SEEDS, unit, domains, seeds, level)


def _check_runs(runs: np.ndarray, what: str) -> np.ndarray:
    runs_SD = np.asarray(runs, float)
    if runs_SD.ndim != 2 or 0 in runs_SD.shape:
        raise UsageError(f"{what} needs success (S, D), seeds by domains, not of shape {np.shape(runs)}")
    if len(runs_SD) < 2:
        raise UsageError(f"{what} is one of training runs and needs at least 2 seeds, not {len(runs_SD)}")
    if not np.isfinite(runs_SD).all() or runs_SD.min() < 0 or runs_SD.max() > 1:
        raise UsageError(f"{what}: success must be finite and lie in [0, 1]; leave out episodes that ended in an error")
    return runs_SD

"""Intervals: from scores of policies on tasks to a number with 95 % limits.

Everything gentax reports is a weighted sum of mean scores (a difference of success rates) or a ratio of two such sums
(a tax), so two functions, `linear` and `ratio`, carry all of it. Both are closed formulae: they draw no random
numbers, take no seed, and give the same digits on every machine.

**Model.** A score is a task effect + a seed effect + their interaction. Domains are fixed. Tasks are paired: every
policy played the same ones. Two parts vary if it were all done again: V_tasks, from the spread over tasks of the
weighted sum of each task's scores (the pairing is in that sum), and V_seeds, from the spread over training seeds of
the weighted sum of each seed's means. The interaction is in both; it is taken off V_tasks, which is the better known.
V_tasks + V_seeds - V_interaction is two-way clustering (Cameron, Gelbach & Miller 2011, eq. 2.11). With one training
seed V_seeds cannot be known: the interval covers tasks only, and says so.

**Margin.** margin² = Σ t(df)² V over the parts, each with the quantile of Student's t for its own degrees of freedom
(Banerjee 1960, who proves that it covers at least as often as it says). Three seeds have 2 degrees of freedom and the
quantile 4.3; a percentile bootstrap over three seeds has no such term, which is why it is too short. Pooled degrees
of freedom (Satterthwaite 1946), and taking the interaction off V_seeds, were tried: both are shorter where seeds hardly
differ, and cover 88 to 92 % where three seeds differ much.

**Ratios.** Fieller (1954): the values R for which numerator - R x denominator is not told apart from 0. Unlike the
delta method it is right when the denominator is noisy, and it has no finite answer when the denominator may be 0.

**Rates of 0 or 1.** The spread of scores that are all alike is 0, which is not what is known about the rate. V_tasks is
taken with four pseudo-tasks of weight one half, one for each pair of outcomes (Agresti & Min 2005, for paired
proportions); the estimate itself stays the plain one. A single rate gets Wilson's (1927) interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.special import stdtrit

from gentax.core.errors import UsageError, unknown

LEVEL = 0.95  # of every interval
TASKS, SEEDS_AND_TASKS = "tasks", "training seeds and tasks"

Weights = Mapping[tuple[str, str], float]  # (role, domain) -> weight of that mean score


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float
    covers: str  # what would vary if it were all done again: "tasks", "training seeds and tasks"
    unit: str  # "percent" (of success), "points" (between two percentages), "fraction", "steps", "characters", …
    n: int  # tasks, over all domains involved
    seeds: int = 1  # training seeds

    def holds(self, x: float) -> bool:
        """Return whether the interval holds `x`: whether the data allow it."""
        return self.low <= x <= self.high

    def mirrored(self) -> Estimate:
        """Return the estimate of the negative: a gain as a loss."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Scores:
    """Scores in [0, 1] of several policies on the same test tasks.

    `roles` maps a role ("init", "after", an arm's name) to domain to an array (S, K): training seeds by tasks. Every
    role has the same tasks, in the same order, on a domain; domains may differ in K, and roles in S. `fixed` are the
    roles that no training seed stands behind (the base policy), where S is 1.

    Raises:
        UsageError: a score that is NaN or outside [0, 1], tasks that do not pair, fewer than 2 tasks, no data.
    """

    roles: Mapping[str, Mapping[str, np.ndarray]]
    fixed: frozenset[str] = frozenset({"init"})

    def __post_init__(self) -> None:
        tasks: dict[str, int] = {}
        for role, domains in self.roles.items():
            seeds = {d: check(scores_SK, f"{role} on {d}").shape for d, scores_SK in domains.items()}
            if len({s for s, _ in seeds.values()}) > 1:
                raise UsageError(f"{role} must have the same training seeds on every domain, not {seeds}")
            for domain, (count, tasks_K) in seeds.items():
                if role in self.fixed and count != 1:
                    raise UsageError(f"{role} is one policy: one row of scores on {domain}, not {count}")
                if tasks.setdefault(domain, tasks_K) != tasks_K:
                    raise UsageError(f"tasks must pair: {role} has {tasks_K} on {domain}, others {tasks[domain]}")

    @classmethod
    def of(cls, **roles: Mapping[str, np.ndarray]) -> Scores:
        """Make scores from arrays (K,) or (S, K); the role `init` is the fixed one."""
        return cls({r: {d: np.atleast_2d(np.asarray(x, float)) for d, x in ds.items()} for r, ds in roles.items()})

    def mean(self, weights: Weights) -> float:
        """Return the weighted sum of mean scores."""
        return float(sum(w * self.roles[r][d].mean() for (r, d), w in weights.items()))


def success_rate(scores: np.ndarray) -> Estimate:
    """Estimate a success rate, in percent, from scores (K,) or (S, K) in [0, 1].

    Wilson's (1927) score interval; for scores that are means of several samples, or come from several training seeds,
    with the number of tasks that would have the same margin in place of K (Korn & Graubard 1998).
    """
    scores_SK = check(np.atleast_2d(np.asarray(scores, float)), "a success rate")
    return _wilson(scores_SK, 100.0, "percent", SEEDS_AND_TASKS if len(scores_SK) > 1 else TASKS)


def bounded_mean(values: np.ndarray, upper: float, unit: str) -> Estimate:
    """Estimate the mean of values (K,), one for each task, that lie in [0, upper], such as lengths up to the horizon.

    Wilson's interval on values / upper, so that it does not collapse when all values are alike.
    """
    return _wilson(check(np.atleast_2d(np.asarray(values, float) / upper), f"a mean of {unit}"), upper, unit, TASKS)


def cluster_mean(sums: np.ndarray, counts: np.ndarray, unit: str) -> Estimate:
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
    half = float(_quantile(tasks - 1) * deviation)
    return Estimate(value, value - half, value + half, TASKS, unit, tasks)


def difference(before: np.ndarray, after: np.ndarray) -> Estimate:
    """Estimate after - before in points, paired by task, from scores (K,) and (K,) or (S, K)."""
    scores = Scores.of(init={"": before}, after={"": after})
    return linear(scores, {("after", ""): 100.0, ("init", ""): -100.0}, "points")


def linear(scores: Scores, weights: Weights, unit: str) -> Estimate:
    """Estimate Σ weight(role, domain) x mean score(role, domain)."""
    half = np.sqrt(_margins(scores, [weights])[0, 0])
    value = scores.mean(weights)
    return Estimate(value, float(value - half), float(value + half), unit=unit, **_origin(scores, weights))


def ratio(scores: Scores, numerator: Weights, denominator: Weights, unit: str = "fraction") -> Estimate | None:
    """Estimate a ratio of two weighted sums by Fieller's (1954) interval.

    Solves (N - R D)² = M_NN - 2 R M_ND + R² M_DD for R, with M the squared margins. Returns None when the interval is
    not finite, which is when the denominator is not told apart from 0: then no ratio is worth printing.
    """
    top, bottom = scores.mean(numerator), scores.mean(denominator)
    if bottom == 0:
        return None
    (m_nn, m_nd), (_, m_dd) = _margins(scores, [numerator, denominator])
    a, b, c = bottom**2 - m_dd, top * bottom - m_nd, top**2 - m_nn
    if a <= 0:
        return None
    root = np.sqrt(max(b * b - a * c, 0.0))
    origin = _origin(scores, {**numerator, **denominator})
    return Estimate(top / bottom, float((b - root) / a), float((b + root) / a), unit=unit, **origin)


def check(scores_SK: np.ndarray, what: str) -> np.ndarray:
    """Return `scores_SK` when it is (S, K), K at least 2, of finite scores in [0, 1]; raise UsageError otherwise."""
    if scores_SK.ndim != 2 or scores_SK.shape[0] < 1 or scores_SK.shape[1] < 2:
        raise UsageError(f"{what} needs scores of at least 2 tasks, seeds by tasks, not shape {scores_SK.shape}")
    if not np.isfinite(scores_SK).all():
        raise UsageError(f"{what}: scores hold NaN or infinity; leave out episodes that ended in an error first")
    if scores_SK.min() < 0 or scores_SK.max() > 1:
        raise UsageError(f"{what}: scores must lie in [0, 1]; these reach {scores_SK.min():g} to {scores_SK.max():g}")
    return scores_SK


def _margins(scores: Scores, forms: list[Weights]) -> np.ndarray:
    """Return the squared margins (J, J) of J weighted sums: Σ t² V over the parts, a quadratic form in the sums."""
    keys = sorted({key for form in forms for key in form})  # sorted: sums in one order, the same digits everywhere
    for role, domain in keys:
        if role not in scores.roles:
            raise unknown("role", role, scores.roles)
        if domain not in scores.roles[role]:
            raise unknown(f"domain of {role}", domain, scores.roles[role])
    total = np.zeros((len(forms), len(forms)))
    for domain in sorted({d for _, d in keys}):
        roles = [r for r, d in keys if d == domain]
        weights_JR = np.array([[form.get((r, domain), 0.0) for r in roles] for form in forms])
        means_RK = np.stack([scores.roles[r][domain].mean(0) for r in roles])
        mixed = [_interaction(scores.roles[r][domain]) for r in roles]
        variance = weights_JR @ (_pseudo_covariance(means_RK) - np.diag(mixed)) @ weights_JR.T
        # At least 0 in every direction, which chance might make it miss.
        size, axes = np.linalg.eigh(variance)
        total += _quantile(means_RK.shape[1] - 1) ** 2 * (axes * np.maximum(size, 0.0)) @ axes.T
    for role in sorted({r for r, _ in keys} - scores.fixed):
        of_role = [scores.roles[role][d] for r, d in keys if r == role]
        seeds = len(of_role[0])
        if seeds < 2:
            continue
        weights_JD = np.array([[form.get((role, d), 0.0) for r, d in keys if r == role] for form in forms])
        sums_JS = weights_JD @ np.stack([scores_SK.mean(1) for scores_SK in of_role])
        total += _quantile(seeds - 1) ** 2 * np.atleast_2d(np.cov(sums_JS)) / seeds
    return total


def _pseudo_covariance(scores_RK: np.ndarray) -> np.ndarray:
    """Return the covariance (R, R) of the mean scores of paired policies, pseudo-tasks included.

    Half a task for each of the four outcomes of a pair adds 1 + 1 successes and failures to a policy and leaves its
    covariance with another as it is; the same holds for any number of policies.
    """
    count, weight = scores_RK.shape[1], 2.0
    centred = scores_RK - scores_RK.mean(1, keepdims=True)
    middle = scores_RK.mean(1) - 0.5
    # Weighted scatter of the K tasks and of pseudo-tasks with mean 1/2 and variance 1/4, about their common mean.
    scatter = centred @ centred.T + weight * 0.25 * np.eye(len(scores_RK))
    scatter += np.outer(middle, middle) * count * weight / (count + weight)
    return scatter / (count + weight - 1) / (count + weight)


def _interaction(scores_SK: np.ndarray) -> float:
    """Return the variance of the mean score that is due to the interaction of seeds and tasks: MS_residual / (S K).

    0 with one seed, which cannot tell it.
    """
    seeds, tasks = scores_SK.shape
    if seeds < 2:
        return 0.0
    rest = scores_SK - scores_SK.mean(0) - scores_SK.mean(1, keepdims=True) + scores_SK.mean()
    return float((rest**2).sum() / ((seeds - 1) * (tasks - 1)) / (seeds * tasks))


def _wilson(scores_SK: np.ndarray, scale: float, unit: str, covers: str) -> Estimate:
    seeds, tasks = scores_SK.shape
    rate = float(scores_SK.mean())
    mean_K = scores_SK.mean(0)
    # One success and one failure more keep the variance off 0; for 0/1 scores they cancel, and h below is z² / K.
    centre = (mean_K.sum() + 1) / (tasks + 2)
    spread = (((mean_K - centre) ** 2).sum() + centre**2 + (1 - centre) ** 2) / (tasks + 2)
    margin = _quantile(np.inf) ** 2 * max(spread / tasks - _interaction(scores_SK), 0.0)
    if seeds > 1:
        margin += _quantile(seeds - 1) ** 2 * scores_SK.mean(1).var(ddof=1) / seeds
    h = margin / (centre * (1 - centre))  # Wilson's z² / n
    middle = (rate + h / 2) / (1 + h)
    half = np.sqrt(rate * (1 - rate) * h + h**2 / 4) / (1 + h)
    # Rounding may put a limit an ulp past the rate itself, or past 0 and 1.
    low, high = min(max(middle - half, 0.0), rate), max(min(middle + half, 1.0), rate)
    return Estimate(rate * scale, float(low) * scale, float(high) * scale, covers, unit, tasks, seeds)


def _quantile(df: float) -> float:
    return float(stdtrit(min(df, 1e9), 0.5 + LEVEL / 2))


def _origin(scores: Scores, weights: Weights) -> dict[str, Any]:
    """Return what an interval covers and how many tasks and seeds are in it."""
    trained = sorted({r for r, _ in weights} - scores.fixed)
    seeds = min((len(next(iter(scores.roles[r].values()))) for r in trained), default=1)
    used = {d: scores.roles[r][d].shape[1] for r, d in weights}
    return {"covers": SEEDS_AND_TASKS if seeds > 1 else TASKS, "n": sum(used.values()), "seeds": seeds}

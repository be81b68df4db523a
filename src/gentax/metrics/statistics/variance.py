"""Variance components of a weighted sum of mean scores, their effective degrees of freedom, and the margin of error.

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
Cochran & Cox's (1950) quantile, the mean of the two weighted by variance: it covers 95 to 97 % at three seeds,
whichever kind dominates, where Satterthwaite's over both, which is shorter, falls to 92 % and less when seeds differ
much (`benchmarks/coverage.py` compares both with Banerjee's and Welch's).

**Rates of 0 or 1.** The spread of identical scores is 0, which is not what is known about the rate. So the
variance is taken with two pseudo-tasks on which each outcome of a pair is as likely as any other (Agresti & Min 2005;
with several seeds, each outcome of all of them), shared between the domains of a sum (Price & Bonett 2004), each as
large as an effective task (Korn & Graubard 1998). The estimate itself stays the plain one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from gentax.core.errors import UsageError, unknown
from gentax.metrics.statistics.scores import Scores, TaskClusters, Weights

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

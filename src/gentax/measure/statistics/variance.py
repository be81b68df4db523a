"""Where the uncertainty of a weighted sum of mean scores comes from, part by part, and the margin it makes.

**Model.** A score is a task effect + a seed effect + their interaction. Domains are fixed. Tasks are paired: every
policy played the same ones. Two kinds of part vary if it were all done again: tasks, a part for each domain, from the
spread over its tasks of the weighted sum of each task's scores (the pairing is in that sum); and training seeds, a
part for each role, from the spread over seeds of the weighted sum of each seed's means. The interaction is in both and
is taken off the tasks', which is the better known. That is two-way clustering (Cameron, Gelbach & Miller 2011, eq.
2.11). With one seed its part cannot be known: the interval covers tasks only, and says so.

**Margin.** Three seeds have 2 degrees of freedom and a quantile of Student's t of 4.3, thousands of tasks one of 1.96.
Two classical ways to bring such parts together bracket the truth: sqrt(Σ t(df)² V), which covers at least as often as
it says (Banerjee 1960), and t(pooled df) sqrt(Σ V) (Satterthwaite 1946), which covers too rarely where few seeds
differ much. The margin is halfway between them: simulated, the first alone covers 97 to 99 % at three seeds, the
second down to 91 %, the middle 93 % and more (`benchmarks/coverage.py`). A percentile bootstrap over three seeds has
no such quantile in it, which is why it is too short.

**Rates of 0 or 1.** The spread of scores that are all alike is 0, which is not what is known about the rate. So the
variance is taken with pseudo-tasks, shared between the domains of a sum and alike between all outcomes of a pair: two
of them with one seed (Agresti & Min 2005), 1.25 with more, where two were found to be conservative and one too few. The
estimate itself stays the plain one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from gentax.core.errors import UsageError, unknown
from gentax.measure.statistics.scores import Scores, Weights

PSEUDO_TASKS = {True: 2.0, False: 1.25}  # in all domains of a sum together, with one seed and with more


@dataclass(frozen=True)
class Parts:
    """The variance of J weighted sums: P independent parts."""

    covariance_PJJ: np.ndarray
    df_P: np.ndarray  # degrees of freedom each part is known with

    def margin(self, weights_J: Sequence[float], level: float) -> float:
        """Return the margin of a combination of the sums at `level`."""
        weights = np.asarray(weights_J, float)
        return margin(np.einsum("j,pjk,k->p", weights, self.covariance_PJJ, weights), self.df_P, level)


def margin(variance_P: np.ndarray, df_P: np.ndarray, level: float) -> float:
    """Return half the length of the interval of a mean whose variance is Σ variance_P."""
    variance_P = np.maximum(variance_P, 0.0)  # rounding
    if not 0 < level < 1:
        raise UsageError(f"the level of an interval must lie between 0 and 1, not {level}")
    total = variance_P.sum()
    if total == 0:
        return 0.0
    share_P = variance_P / total
    pooled = 1 / max((share_P**2 / df_P).sum(), 1e-12)  # 0 where all degrees of freedom are infinite
    banerjee = np.sqrt((quantile(df_P, level) ** 2 * variance_P).sum())
    satterthwaite = quantile(pooled, level) * np.sqrt(total)
    return float((banerjee + satterthwaite) / 2)


def quantile(df: np.ndarray | float, level: float) -> np.ndarray:
    """Return what Student's t exceeds in absolute value with probability 1 - level; df of infinity is the normal."""
    return stdtrit(np.minimum(df, 1e9), 0.5 + level / 2)


def parts(scores: Scores, forms: Sequence[Weights]) -> Parts:
    """Return the variance of weighted sums of mean scores, a part for each domain and each trained role.

    Raises:
        UsageError: a form that names a role or a domain there is not.
    """
    keys = sorted({key for form in forms for key in form})  # sorted: sums in one order, the same digits everywhere
    if not keys:
        raise UsageError("a sum of scores needs at least one role and domain")
    for role, domain in keys:
        if role not in scores.roles:
            raise unknown("role", role, scores.roles)
        if domain not in scores.roles[role]:
            raise unknown(f"domain of {role}", domain, scores.roles[role])
    found: list[np.ndarray] = []
    df: list[float] = []
    domains = sorted({d for _, d in keys})
    one_seed = all(len(scores.roles[r][d]) == 1 for r, d in keys)
    pseudo = PSEUDO_TASKS[one_seed] / len(domains)
    for domain in domains:
        roles = [r for r, d in keys if d == domain]
        weights_JR = np.array([[form.get((r, domain), 0.0) for r in roles] for form in forms])
        means_RK = np.stack([scores.roles[r][domain].mean(0) for r in roles])
        mixed = [interaction(scores.roles[r][domain]) for r in roles]
        spread, least = _covariance(means_RK, pseudo)
        variance = weights_JR @ (spread - least - np.diag(mixed)) @ weights_JR.T
        size, axes = np.linalg.eigh(variance)  # at least 0 in every direction, which chance might make it miss
        found.append((axes * np.maximum(size, 0.0)) @ axes.T + weights_JR @ least @ weights_JR.T)
        df.append(means_RK.shape[1] - 1)
    for role in sorted({r for r, _ in keys} - scores.fixed):
        of_role = [scores.roles[role][d] for r, d in keys if r == role]
        seeds = len(of_role[0])
        if seeds < 2:
            continue
        weights_JD = np.array([[form.get((role, d), 0.0) for r, d in keys if r == role] for form in forms])
        sums_JS = weights_JD @ np.stack([scores_SK.mean(1) for scores_SK in of_role])
        found.append(np.cov(sums_JS).reshape(len(forms), len(forms)) / seeds)
        df.append(seeds - 1)
    return Parts(np.stack(found), np.array(df, float))


def interaction(scores_SK: np.ndarray) -> float:
    """Return the variance of the mean score that is due to the interaction of seeds and tasks: MS_residual / (S K).

    0 with one seed, which cannot tell it.
    """
    seeds, tasks = scores_SK.shape
    if seeds < 2:
        return 0.0
    rest = scores_SK - scores_SK.mean(0) - scores_SK.mean(1, keepdims=True) + scores_SK.mean()
    return float((rest**2).sum() / ((seeds - 1) * (tasks - 1)) / (seeds * tasks))


def _covariance(scores_RK: np.ndarray, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the covariance (R, R) of the mean scores of paired policies, pseudo-tasks of some weight included.

    And what of it there would be if all scores were alike: a share that the interaction cannot take off.

    Shared alike between the outcomes of a pair it adds as many successes as failures to a policy and leaves its
    covariance with another as it is; the same holds for any number of policies.
    """
    count = scores_RK.shape[1]
    centred = scores_RK - scores_RK.mean(1, keepdims=True)
    middle = scores_RK.mean(1) - 0.5
    # Weighted scatter of the K tasks and of pseudo-tasks with mean 1/2 and variance 1/4, about their common mean.
    least = weight * 0.25 * np.eye(len(scores_RK))
    scatter = centred @ centred.T + least + np.outer(middle, middle) * count * weight / (count + weight)
    divided = (count + weight - 1) * (count + weight)
    return scatter / divided, least / divided

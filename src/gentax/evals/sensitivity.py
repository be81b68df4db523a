"""A second opinion: the tax under a logistic mixed model, beside intervals that assume no model.

logit P(success) = an effect of each domain before and after + a normal effect of each task + one of each content that
several tasks share. Fitted by variational Bayes (`statsmodels`, BinomialBayesMixedGLM); the effects' covariance is that
of the Laplace approximation about its mean, since a mean-field posterior has none. Success is averaged over tasks
before it is added up, so the tax means what it means elsewhere. Where this and the main interval part, few clusters or
rates near 0 or 1 deserve a look. Left out: training seeds; it is for one checkpoint.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from gentax.core import Outcome, UsageError
from gentax.core.imports import require
from gentax.evals.evaluate import Evaluation
from gentax.metrics.statistics import LEVEL, TASKS, Estimate

DRAWS = 4000
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(31)


@dataclass(frozen=True)
class MixedModel:
    """The tax and the drops under the model."""

    source: str
    tax: Estimate
    drop: Mapping[str, Estimate]  # points, targets only
    task_spread: float  # standard deviation of tasks and contents together, in logits

    def sentences(self) -> list[str]:
        """Say the tax and the drops."""
        from gentax.metrics.verdict import number

        drops = "; ".join(f"{t} {number(e.value)} ({number(e.low)} to {number(e.high)})" for t, e in self.drop.items())
        tax = f"{number(100 * self.tax.value)} % ({number(100 * self.tax.low)} % to {number(100 * self.tax.high)} %)"
        return [f"Sensitivity: under a logistic mixed model the tax is {tax}, the drops in points {drops}."]


def check_installed() -> None:
    """Raise UsageError where statsmodels is missing."""
    require("statsmodels", "the sensitivity check", "gentax[sensitivity]")


def mixed_model(before: Evaluation, after: Evaluation, source: str, level: float = LEVEL) -> MixedModel:
    """Fit the model to the episodes of two policies on the same tasks; those that ended in an error are left out.

    Deterministic.

    Raises:
        UsageError: statsmodels is missing, no target.
    """
    check_installed()
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

    targets = sorted(set(before.episodes) - {source})
    if not targets:
        raise UsageError(f"no target: the tax of {source} needs at least one other domain")
    rows = [
        (2 * d + late, episode.task.id, f"{t} {getattr(episode, 'content', '') or episode.task.id}", episode.success)
        for d, t in enumerate(targets)
        for late, of in enumerate((before, after))
        for episode in of.episodes[t]
        if episode.outcome is not Outcome.ERROR
    ]
    effect, task, content = (np.unique([row[i] for row in rows], return_inverse=True)[1] for i in range(3))
    won = np.array([row[3] for row in rows], float)
    fixed = np.eye(2 * len(targets))[effect]
    groups = [np.eye(task.max() + 1)[task]]
    if content.max() < task.max():  # tasks that share their content
        groups.append(np.eye(content.max() + 1)[content])
    random = np.concatenate(groups, axis=1)
    kind = np.repeat(np.arange(len(groups)), [of.shape[1] for of in groups])
    model = BinomialBayesMixedGLM(won, fixed, random, kind)
    size = fixed.shape[1] + len(groups) + random.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of gradients that end a little above the tolerance
        fit = model.fit_vb(mean=np.zeros(size), sd=np.full(size, 0.5), fit_method="L-BFGS-B")

    # Laplace: the curvature of the log posterior at the mean, given the spread of tasks.
    both = np.concatenate([fixed, random], axis=1)
    p = expit(fixed @ fit.fe_mean + random @ fit.vc_mean)
    prior = np.concatenate([np.full(fixed.shape[1], 1 / model.fe_p**2), np.exp(-2 * fit.vcp_mean)[kind]])
    covariance = np.linalg.inv((both * (p * (1 - p))[:, None]).T @ both + np.diag(prior))
    rng = np.random.default_rng(0)
    ends = fixed.shape[1]
    drawn_NE = rng.multivariate_normal(fit.fe_mean, covariance[:ends, :ends], DRAWS, method="cholesky")
    spread_NG = np.exp(fit.vcp_mean + fit.vcp_sd * rng.standard_normal((DRAWS, len(groups))))
    spread_N = np.sqrt((spread_NG**2).sum(1))
    success_NE = expit(drawn_NE[..., None] + spread_N[:, None, None] * _NODES) @ _WEIGHTS / _WEIGHTS.sum()
    init_ND, after_ND = success_NE[:, ::2], success_NE[:, 1::2]
    tasks = {t: len(dict.fromkeys(episode.task for episode in before.episodes[t])) for t in targets}

    def estimate(drawn_N: np.ndarray, unit: str, n: int) -> Estimate:
        low, high = np.quantile(drawn_N, [(1 - level) / 2, (1 + level) / 2])
        return Estimate(float(np.median(drawn_N)), float(low), float(high), TASKS, unit, n, level=level)

    return MixedModel(
        source=source,
        tax=estimate(1 - after_ND.sum(1) / init_ND.sum(1), "fraction", sum(tasks.values())),
        drop={t: estimate(100 * (init_ND[:, d] - after_ND[:, d]), "points", tasks[t]) for d, t in enumerate(targets)},
        task_spread=float(np.median(spread_N)),
    )

"""What has no closed interval, by resampling: the interquartile mean and the probability of improvement.

Both are taken over training runs, seeds by domains, as `rliable` does (Agarwal et al. 2021, arXiv 2108.13264), with
percentile intervals of the stratified bootstrap. **They are too short for few seeds**: three values resampled have no
more spread than three values. `linear` and `ratio` are what verdicts are made of; these stand beside them because the
field compares runs by them.

A `numpy.random.Generator` is passed in; the same one gives the same digits on every machine.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gentax.core.errors import UsageError
from gentax.metrics.statistics.estimate import LEVEL, SEEDS, SEEDS_AND_TASKS, Estimate

REPLICATES = 10_000
TRIM = 0.25  # of the runs at either end
_CHUNK = 1 << 17  # indices drawn at once: what stays in a processor's cache


def iqm(scores: np.ndarray, rng: np.random.Generator, replicates: int = REPLICATES, level: float = LEVEL) -> Estimate:
    """Estimate the interquartile mean of runs, in percent: the mean of what is left without the best and worst quarter.

    Args:
        scores: (S, D), the success of each training run on each domain, in [0, 1]; or (S, D, K) with its tasks, whose
            choice then is in the interval too.
        rng: draws the replicates.
        replicates: how many.
        level: of the interval.

    Raises:
        UsageError: fewer than 2 seeds, NaN, scores outside [0, 1].
    """
    scores_SDK = _checked(scores, "the interquartile mean")

    def trimmed(runs_BSD: np.ndarray) -> np.ndarray:
        flat_BR = np.sort(runs_BSD.reshape(len(runs_BSD), -1), axis=1)
        cut = int(TRIM * flat_BR.shape[1])
        return flat_BR[:, cut : flat_BR.shape[1] - cut].mean(1)

    return _percentiles(trimmed, [scores_SDK], rng, replicates, level, 100.0, "percent")


def probability_of_improvement(
    arm: np.ndarray,
    plain: np.ndarray,
    rng: np.random.Generator,
    replicates: int = REPLICATES,
    level: float = LEVEL,
) -> Estimate:
    """Estimate the chance that a run of `arm` does better than a run of `plain`, averaged over domains; ties are half.

    Args:
        arm: (S, D) or (S, D, K), as for `iqm`.
        plain: the same domains (and tasks); it may have other seeds and another number of them.
        rng: draws the replicates.
        replicates: how many.
        level: of the interval.

    Raises:
        UsageError: fewer than 2 seeds of either, other domains or tasks, NaN, scores outside [0, 1].
    """
    pair = [_checked(x, "the probability of improvement") for x in (arm, plain)]
    if pair[0].shape[1:] != pair[1].shape[1:]:
        raise UsageError(f"arm and plain must have the same domains and tasks, not {np.shape(arm)}, {np.shape(plain)}")

    def better(arm_BSD: np.ndarray, plain_BSD: np.ndarray) -> np.ndarray:
        one, other = arm_BSD[:, :, None], plain_BSD[:, None]
        return ((one > other) + 0.5 * (one == other)).mean((1, 2, 3))

    return _percentiles(better, pair, rng, replicates, level, 1.0, "fraction")


def bootstrap_means(
    scores_SDK: np.ndarray, rng: np.random.Generator, replicates: int = REPLICATES, stratified: bool = True
) -> np.ndarray:
    """Return (B, S, D) mean scores of resampled runs: tasks are drawn anew within each domain, then seeds.

    Args:
        scores_SDK: seeds by domains by tasks, in [0, 1].
        rng: draws indices, all integers.
        replicates: B.
        stratified: whether seeds are drawn for each domain by itself (`rliable`'s way); together otherwise, which
            keeps what a training run does to all domains at once.
    """
    seeds, domains, tasks = scores_SDK.shape
    out_BSD = np.empty((replicates, seeds, domains))
    chunk = max(1, _CHUNK // tasks)
    for begin in range(0, replicates, chunk):
        size = min(chunk, replicates - begin)
        for d in range(domains):
            out_BSD[begin : begin + size, :, d] = _resampled_tasks(scores_SDK[:, d], rng, size)
    drawn_BSD = rng.integers(seeds, size=(replicates, seeds, domains if stratified else 1))
    return np.take_along_axis(out_BSD, np.broadcast_to(drawn_BSD, out_BSD.shape), axis=1)


def _resampled_tasks(scores_SK: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """Return (B, S) mean scores over tasks drawn with replacement, the same for all seeds."""
    tasks = scores_SK.shape[1]
    if tasks == 1:
        return np.broadcast_to(scores_SK[:, 0], (size, len(scores_SK)))
    drawn_BK = rng.integers(tasks, size=(size, tasks))
    drawn_BK += (np.arange(size) * tasks)[:, None]
    times_BK = np.bincount(drawn_BK.ravel(), minlength=size * tasks).reshape(size, tasks)
    return times_BK.astype(float) @ scores_SK.T / tasks


def _percentiles(
    statistic: Callable[..., np.ndarray],
    arrays: list[np.ndarray],
    rng: np.random.Generator,
    replicates: int,
    level: float,
    scale: float,
    unit: str,
) -> Estimate:
    value = float(statistic(*(x.mean(2)[None] for x in arrays))[0])
    drawn = statistic(*(bootstrap_means(x, rng, replicates) for x in arrays))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    tasks = arrays[0].shape[2]
    return Estimate(
        value * scale,
        float(low) * scale,
        float(high) * scale,
        SEEDS if tasks == 1 else SEEDS_AND_TASKS,
        unit,
        arrays[0].shape[1] * tasks,
        min(len(x) for x in arrays),
        level,
    )


def _checked(scores: np.ndarray, what: str) -> np.ndarray:
    scores_SDK = np.asarray(scores, float)
    if scores_SDK.ndim == 2:
        scores_SDK = scores_SDK[..., None]
    if scores_SDK.ndim != 3 or 0 in scores_SDK.shape:
        raise UsageError(f"{what} needs scores (S, D) or (S, D, K), not of shape {np.shape(scores)}")
    if len(scores_SDK) < 2:
        raise UsageError(f"{what} is one of training runs and needs at least 2 seeds, not {len(scores_SDK)}")
    if not np.isfinite(scores_SDK).all() or scores_SDK.min() < 0 or scores_SDK.max() > 1:
        raise UsageError(f"{what}: scores must be finite and lie in [0, 1]; leave out episodes that ended in an error")
    return scores_SDK

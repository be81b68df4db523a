"""What has no closed interval, by resampling: the interquartile mean and the probability of improvement.

Both are taken over training runs, seeds by domains, as `rliable` does (Agarwal et al. 2021, arXiv 2108.13264), with
percentile intervals of the stratified bootstrap: seeds are drawn for each domain by itself. **They are too short for
few seeds**: three values resampled have no more spread than three values. Verdicts are made of closed intervals; these
stand beside them because the field compares runs by them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import trim_mean

from gentax.core.errors import UsageError
from gentax.metrics.statistics.estimate import LEVEL, SEEDS, Estimate

REPLICATES = 10_000
TRIM = 0.25  # of the runs at either end


def iqm(runs_SD: np.ndarray, rng: np.random.Generator, replicates: int = REPLICATES, level: float = LEVEL) -> Estimate:
    """Estimate the interquartile mean of runs, in percent: the mean of what is left without the best and worst quarter.

    Args:
        runs_SD: the success of each training run on each domain, in [0, 1].
        rng: draws the replicates.
        replicates: how many.
        level: of the interval.

    Raises:
        UsageError: fewer than 2 seeds, NaN, success outside [0, 1].
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

    Args:
        arm_SD: as for `iqm`.
        plain_SD: on the same domains; it may have other seeds and another number of them.
        rng: draws the replicates.
        replicates: how many.
        level: of the interval.

    Raises:
        UsageError: fewer than 2 seeds of either, other domains, NaN, success outside [0, 1].
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

"""Power analysis: the tasks and training seeds a question takes, and the minimum detectable effect of a design.

The normal approximation for a mean of paired differences: n = ((z_level + z_power) / drop)² variance, with the sum of
z's replaced by the drift that a study with several interim analyses needs (Jennison & Turnbull 2000, ch. 3). The
variance is not known in advance. It is assumed until there is a pilot: the first tasks of the study itself, from which
the variance, and nothing of the drop, is used (an internal pilot, Wittes & Brittain 1990).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from gentax.core.errors import UsageError
from gentax.core.results import Record
from gentax.metrics.statistics.multiple_testing import InterimAnalyses
from gentax.metrics.statistics.scores import LEVEL, Scores, design_effect, margin, rounded, variance_components

POWER = 0.8  # the chance of detecting a drop of the size asked for
# From runs of the shipped base on Sokoban: base success of about 30 %, outcomes of one task before and after that
# correlate by 0.7 to 0.95, a variance of their difference of 0.08 to 0.1, and seeds about 3 points apart.
BEFORE, CORRELATION, VARIANCE, SEED_SPREAD = 0.3, 0.7, 0.1, 3.0
SEEDS = 3  # training seeds from which on claims are about training rather than about a checkpoint
FREE_WITHIN = 0.05  # a tax whose whole interval is this near 0 is called free
SEEDS_SHOWN = (3, 5, 8)  # for which the minimum detectable drop of training is printed
_MOST_SEEDS, _MOST_TASKS = 100, 1_000_000


@dataclass(frozen=True)
class Pilot(Record):
    """What some tasks tell about the sample size that is needed."""

    tasks: int  # of each target, the fewest
    targets: int
    before: float  # success of the base on the targets, a fraction
    variance: float  # of one task's difference of success (what seeds have in common), design effect included
    correlation: float  # of success before and after on a task
    design_effect: float  # of clusters
    seed_spread: float | None = None  # points: standard deviation over seeds of the mean drop; None with one seed

    def to_json(self) -> dict[str, Any]:
        return {key: rounded(value) for key, value in vars(self).items()}


def estimate_pilot(scores: Scores, targets: Sequence[str]) -> Pilot:
    """Estimate what planning needs from scores with the roles `init` and `after`."""
    weights = {("init", t): 1 / len(targets) for t in targets} | {("after", t): -1 / len(targets) for t in targets}
    components = variance_components(scores, [weights])
    variance_P = components.variance([1.0])
    fewest = min(scores.roles["init"][t].shape[1] for t in targets)
    pairs = [(scores.roles["init"][t][0], x) for t in targets for x in scores.roles["after"][t]]
    covariance = sum(float(((a - a.mean()) * (b - b.mean())).mean()) for a, b in pairs)
    variances = [sum(float(x.var()) for x in of) for of in zip(*pairs, strict=True)]
    spread = float(np.sqrt(variances[0] * variances[1]))
    centred = [np.stack([a - a.mean(), b - b.mean()]) for a, b in pairs]
    clusters = [scores.clusters_of(t) for t in targets for _ in scores.roles["after"][t]]
    seeds = len(scores.roles["after"][targets[0]])
    return Pilot(
        tasks=fewest,
        targets=len(targets),
        before=float(np.mean([scores.roles["init"][t].mean() for t in targets])),
        variance=float(variance_P[~components.of_seeds_P].sum()) * fewest * len(targets),
        correlation=covariance / spread if spread > 0 else 1.0,
        design_effect=float(np.mean([design_effect(x, c) for x, c in zip(centred, clusters, strict=True)])),
        seed_spread=100 * float(np.sqrt(seeds * variance_P[components.of_seeds_P].sum())) if seeds > 1 else None,
    )


def required_sample_size(drop: float, targets: int, analyses: InterimAnalyses, variance: float = VARIANCE) -> int:
    """Return how many tasks of each target, at the final analysis, detect a mean drop of `drop` points over targets.

    `variance` is that of one task's difference of success (0 to 1), mean over targets, such as a pilot's.

    Raises:
        UsageError: a drop that is not between 0 and 100 points, no target, a variance outside (0, 2].
    """
    if not 0 < drop <= 100:
        raise UsageError(f"the drop to be detected must lie between 0 and 100 points, not {drop:g}")
    _check(targets, variance)
    return max(2, math.ceil((analyses.drift(POWER) / (drop / 100)) ** 2 * variance / targets))


def minimum_detectable_drop(tasks: int, targets: int, analyses: InterimAnalyses, variance: float = VARIANCE) -> float:
    """Return the mean drop, in points, that so many tasks of each target detect. Raises as `required_sample_size`."""
    _check(targets, variance)
    return float(100 * analyses.drift(POWER) * np.sqrt(variance / (tasks * targets)))


def free_within(
    tasks: int, targets: int, analyses: InterimAnalyses, variance: float = VARIANCE, before: float = BEFORE
) -> float:
    """Return the smallest equivalence margin ±x (a tax) that training without a tax meets.

    The whole interval must lie within ±x (two one-sided tests, Schuirmann 1987, at the interval's level). Infinite
    where the base never succeeds.
    """
    _check(targets, variance)
    if before <= 0:
        return float("inf")
    z = analyses.critical_values[-1] + ndtri((1 + POWER) / 2)
    return float(z * np.sqrt(variance / (tasks * targets)) / before)


def minimum_detectable_drop_of_training(
    seeds: int,
    tasks: int,
    targets: int,
    spread: float = SEED_SPREAD,
    variance: float = VARIANCE,
    level: float = LEVEL,
) -> float:
    """Return the mean drop of the expected training run, in points, that at least 2 seeds detect.

    Args:
        seeds: training seeds.
        tasks: of each target.
        targets: how many targets.
        spread: points, standard deviation over seeds of the mean drop.
        variance: of one task's difference of success, mean over targets.
        level: of the interval that must not contain 0.
    """
    _check(targets, variance)
    both = np.array([variance / (tasks * targets), (spread / 100) ** 2 / seeds])
    half = float(margin(both, np.array([np.inf, seeds - 1.0]), np.array([False, True]), level))
    return 100 * (half + float(ndtri(POWER)) * float(np.sqrt(both.sum())))


def required_seeds(
    drop: float,
    tasks: int,
    targets: int,
    spread: float = SEED_SPREAD,
    variance: float = VARIANCE,
    level: float = LEVEL,
) -> int | None:
    """Return how many training seeds detect a mean drop of `drop` points; None for over 100.

    None also means that the tasks are too few for any number of seeds. See `minimum_detectable_drop_of_training`.
    """
    for seeds in range(SEEDS, _MOST_SEEDS + 1):
        if minimum_detectable_drop_of_training(seeds, tasks, targets, spread, variance, level) <= drop:
            return seeds
    return None


def required_tasks(
    drop: float, seeds: int, spread: float, variance: float, interaction: float = 0.0, level: float = LEVEL
) -> int | None:
    """Return how many tasks detect a drop of training with so many seeds; None where over a million would not.

    Args:
        drop: points of success.
        seeds: training seeds, at least 2.
        spread: points, standard deviation over seeds of the expected drop, whatever the tasks.
        variance: of what seeds have in common of one task's difference of success.
        interaction: variance of what one seed does to one task, which more tasks average out as well.
        level: of the interval that must not contain 0.
    """

    def detects(tasks: int) -> bool:
        of_means = 100 * math.sqrt((spread / 100) ** 2 + interaction / tasks)
        return minimum_detectable_drop_of_training(seeds, tasks, 1, of_means, variance, level) <= drop

    if not detects(_MOST_TASKS):
        return None
    return bisect_left(range(_MOST_TASKS), True, lo=2, key=detects)


def few_seeds_caveat(seeds: int, cells: int) -> str | None:
    """Return what too few training seeds can claim, and how many more runs it takes; `cells` are arms times sources."""
    if seeds >= SEEDS:
        return None
    more, subject = (SEEDS - seeds) * cells, "this checkpoint" if seeds == 1 else "these two checkpoints"
    return (
        f"With {seeds} training seed{'s' if seeds > 1 else ''} the report says what {subject} lost; what training "
        f"costs takes {SEEDS} seeds or more, {more} more training run{'s' if more > 1 else ''} here."
    )


def power_sentences(
    tasks: int,
    targets: int,
    analyses: InterimAnalyses,
    pilot: Pilot | None = None,
    drop: float | None = None,
) -> list[str]:
    """Return the drop and tax that so many tasks detect, whether "free" can be shown, and the seeds training takes.

    Args:
        tasks: of each target, the fewest.
        targets: how many targets.
        analyses: the planned interim analyses.
        pilot: what is known; None for the assumptions made until something is.
        drop: mean drop in points that must be detected, if any.
    """
    basis = (
        f"assumed until tasks are played: base success of {100 * BEFORE:g} %, outcomes of a task that correlate by "
        f"{CORRELATION:g} or more"
    )
    variance, before, spread, known = VARIANCE, BEFORE, SEED_SPREAD, "assumed"
    if pilot is not None:
        variance, before = pilot.variance, pilot.before
        basis = (
            f"from {pilot.tasks} tasks of each: base success of {100 * before:.0f} %, correlation "
            f"{pilot.correlation:.2f}, variance of a task's difference {variance:.3f}"
        )
        if pilot.seed_spread is not None:
            spread, known = pilot.seed_spread, "measured"
    sample = f"{tasks} tasks of each of {targets} targets" if targets > 1 else f"{tasks} tasks of the target"
    if before <= 0:
        return [f"The base solves none of {sample}: there is nothing to lose."]
    smallest = minimum_detectable_drop(tasks, targets, analyses, variance)
    if smallest >= 100 * before:
        return [f"{sample} are too few to detect any loss reliably ({basis})."]
    single = minimum_detectable_drop(tasks, 1, analyses, variance)
    on_one = f", or a drop of {single:.1f} on a single target," if targets > 1 else ""
    lines = [
        f"{sample} detect a mean drop of {smallest:.1f} points, a tax of {smallest / before:.0f} %{on_one} with "
        f"{100 * POWER:g} % power ({basis})."
    ]
    reached = free_within(tasks, targets, analyses, variance, before)
    free = f'"free" within ±{100 * FREE_WITHIN:g} %'
    if reached > FREE_WITHIN:
        needed = int(tasks * (reached / FREE_WITHIN) ** 2) + 1
        shown = f"these show it within ±{100 * reached:.0f} %"
        lines.append(f"Showing that training is {free} would take {needed:,} tasks of each; {shown}.")
    else:
        lines.append(f"They are enough to show that training is {free}.")
    shown = ", ".join(
        f"{minimum_detectable_drop_of_training(seeds, tasks, targets, spread, variance):.1f} points with {seeds} seeds"
        for seeds in SEEDS_SHOWN
    )
    line = f"A claim about training, not one checkpoint, detects {shown} ({known}: seeds {spread:.1f} points apart)"
    if drop is not None:
        seeds = required_seeds(drop, tasks, targets, spread, variance)
        line += f"; {drop:g} points take {'more tasks, or over 100 seeds' if seeds is None else f'{seeds} seeds'}"
    return [*lines, f"{line}."]


def _check(targets: int, variance: float) -> None:
    if targets < 1:
        raise UsageError(f"a plan needs at least 1 target, not {targets}")
    if not 0 < variance <= 2:
        raise UsageError(f"the variance of a task's difference of success lies between 0 and 2, not {variance}")

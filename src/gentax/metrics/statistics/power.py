"""Power analysis: the tasks and training seeds a question takes, and the minimum detectable effect of a design.

The normal approximation for a mean of paired differences: n = ((z_level + z_power) / drop)² variance, with the sum of
z's replaced by the drift that a study with several interim analyses needs (Jennison & Turnbull 2000, ch. 3). The
variance is not known in advance. It is assumed until there is a pilot: the first tasks of the study itself, from which
the variance, and nothing of the drop, is used (an internal pilot, Wittes & Brittain 1990).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy.special import ndtri

from gentax.core.errors import UsageError
from gentax.metrics.statistics.estimate import DIGITS, LEVEL
from gentax.metrics.statistics.multiple_testing import InterimAnalyses
from gentax.metrics.statistics.scores import Scores
from gentax.metrics.statistics.variance import design_effect, margin, parts

POWER = 0.8  # the chance of seeing a drop of the size asked for
# What runs of the shipped base and Sokoban came to: success before about 30 %, outcomes of one task before and after
# that correlate by 0.7 to 0.95, a variance of their difference of 0.08 to 0.1, and seeds of which one lost 1.4 % less
# than nothing and another 8.4 %, which is 3.6 points apart.
BEFORE, CORRELATION, VARIANCE, SEED_SPREAD = 0.3, 0.7, 0.1, 3.0
SEEDS = 3  # training seeds from which on something is said of training, not of checkpoints
FREE_WITHIN = 0.05  # a tax whose whole interval is this near 0 is called free
SEEDS_SHOWN = (3, 5, 8)  # for which the outlook gives the detectable drop
_MOST_SEEDS = 100


@dataclass(frozen=True)
class Pilot:
    """What some tasks tell about how many it takes."""

    tasks: int  # of each target, the fewest
    targets: int
    before: float  # success of the base on the targets, a fraction
    variance: float  # of one task's difference of success (what seeds have in common), design effect included
    correlation: float  # of success before and after on a task
    design_effect: float  # of clusters
    seed_spread: float | None = None  # points: standard deviation over seeds of the mean drop; None with one seed

    def to_json(self) -> dict[str, Any]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {k: float(f"{v:.{DIGITS}g}") if isinstance(v, float) else v for k, v in values.items()}

    @classmethod
    def from_json(cls, value: Any, where: str) -> Pilot:
        """Read a pilot back. Raises UsageError when `value` is none."""
        names = {one.name for one in fields(cls)}
        if not isinstance(value, dict) or set(value) != names:
            raise UsageError(f"{where} holds no pilot; `gentax tax … --json FILE` writes one")
        numbers = [v for k, v in value.items() if not (k == "seed_spread" and v is None)]
        if not all(isinstance(v, (int, float)) and np.isfinite(v) for v in numbers) or not 0 < value["variance"] <= 2:
            raise UsageError(f"{where}: the pilot in it is not sound")
        return cls(**value)


def pilot_of(scores: Scores, targets: Sequence[str]) -> Pilot:
    """Return what scores with the roles `init` and `after` tell about how many tasks it takes."""
    form = {("init", t): 1 / len(targets) for t in targets} | {("after", t): -1 / len(targets) for t in targets}
    known = parts(scores, [form])
    variance_P = known.variance([1.0])
    fewest = min(scores.roles["init"][t].shape[1] for t in targets)
    pairs = [(scores.roles["init"][t][0], x) for t in targets for x in scores.roles["after"][t]]
    together = sum(float(((a - a.mean()) * (b - b.mean())).mean()) for a, b in pairs)
    apart = [sum(float(x.var()) for x in of) for of in zip(*pairs, strict=True)]
    spread = float(np.sqrt(apart[0] * apart[1]))
    centred = [np.stack([a - a.mean(), b - b.mean()]) for a, b in pairs]
    clusters = [scores.clusters_of(t) for t in targets for _ in scores.roles["after"][t]]
    seeds = len(scores.roles["after"][targets[0]])
    return Pilot(
        tasks=fewest,
        targets=len(targets),
        before=float(np.mean([scores.roles["init"][t].mean() for t in targets])),
        variance=float(variance_P[~known.of_seeds_P].sum()) * fewest * len(targets),
        correlation=together / spread if spread > 0 else 1.0,
        design_effect=float(np.mean([design_effect(x, c) for x, c in zip(centred, clusters, strict=True)])),
        seed_spread=100 * float(np.sqrt(seeds * variance_P[known.of_seeds_P].sum())) if seeds > 1 else None,
    )


@dataclass(frozen=True)
class Plan:
    """What it takes to see a mean drop over targets."""

    drop: float  # points, mean over targets
    targets: int
    tasks: int  # of each target, at the last look
    looks: int
    power: float
    variance: float  # of one task's difference of success, before - after, mean over targets

    @property
    def episodes(self) -> int:
        """Episodes of one policy on all targets, when it does not stop early."""
        return self.tasks * self.targets


def episodes_needed(
    drop: float, targets: int, looks: InterimAnalyses, variance: float = VARIANCE, power: float = POWER
) -> Plan:
    """Return how many tasks of each target it takes to see a mean drop of `drop` points with chance `power`.

    Args:
        drop: points of success lost on the mean target; a small one takes many tasks.
        targets: how many domains the mean is over.
        looks: how often the data are looked at.
        variance: of one task's difference of success (0 to 1), mean over targets, such as a pilot's.
        power: the chance of seeing it.

    Raises:
        UsageError: a drop that is not between 0 and 100 points, no target, a power below the level's chance of error or
            not below 1, a variance outside (0, 2].
    """
    if not 0 < drop <= 100:
        raise UsageError(f"the drop to be seen must lie between 0 and 100 points, not {drop:g}")
    _check(targets, looks, power, variance)
    tasks = max(2, int(np.ceil((looks.drift(power) / (drop / 100)) ** 2 * variance / targets)))
    return Plan(drop, targets, tasks, looks.count, power, variance)


def detectable(
    tasks: int, targets: int, looks: InterimAnalyses, variance: float = VARIANCE, power: float = POWER
) -> float:
    """Return the mean drop, in points, that `tasks` tasks of each target show with chance `power`. Raises as above."""
    _check(targets, looks, power, variance)
    return float(100 * looks.drift(power) * np.sqrt(variance / (tasks * targets)))


def free_within(
    tasks: int,
    targets: int,
    looks: InterimAnalyses,
    variance: float = VARIANCE,
    before: float = BEFORE,
    power: float = POWER,
) -> float:
    """Return the smallest ±x (a tax) within which training that costs nothing is found free with chance `power`.

    The whole interval must lie within ±x (two one-sided tests, Schuirmann 1987, at the interval's level).
    Infinite where the base never succeeds.
    """
    _check(targets, looks, power, variance)
    if before <= 0:
        return float("inf")
    return float((looks.critical[-1] + ndtri((1 + power) / 2)) * np.sqrt(variance / (tasks * targets)) / before)


def detectable_of_training(
    seeds: int,
    tasks: int,
    targets: int,
    spread: float = SEED_SPREAD,
    variance: float = VARIANCE,
    power: float = POWER,
) -> float:
    """Return the mean drop, in points, by the mean training that so many training seeds show with chance `power`.

    Args:
        seeds: training seeds, at least 2.
        tasks: of each target.
        targets: how many.
        spread: points, standard deviation over seeds of the mean drop.
        variance: of one task's difference of success, mean over targets.
        power: the chance of seeing it.
    """
    _check(targets, InterimAnalyses(1), power, variance)
    both = np.array([variance / (tasks * targets), (spread / 100) ** 2 / seeds])
    half = float(margin(both, np.array([np.inf, seeds - 1.0]), np.array([False, True]), LEVEL))
    return 100 * (half + float(ndtri(power)) * float(np.sqrt(both.sum())))


def seeds_needed(
    drop: float,
    tasks: int,
    targets: int,
    spread: float = SEED_SPREAD,
    variance: float = VARIANCE,
    power: float = POWER,
) -> int | None:
    """Return how many training seeds show a mean drop of `drop` points with chance `power`; None for over 100.

    None also says that tasks are too few for any number of seeds. The arguments are those of `detectable_of_training`.
    """
    for seeds in range(SEEDS, _MOST_SEEDS + 1):
        if detectable_of_training(seeds, tasks, targets, spread, variance, power) <= drop:
            return seeds
    return None


def few_seeds(seeds: int, cells: int) -> str | None:
    """Say what a study with fewer training seeds than claims need can say, and what more take; None where enough.

    Args:
        seeds: training seeds of each cell.
        cells: arms times sources.
    """
    if seeds >= SEEDS:
        return None
    more, who = (SEEDS - seeds) * cells, "this checkpoint" if seeds == 1 else "these two checkpoints"
    return (
        f"With {seeds} training seed{'s' if seeds > 1 else ''} the report says what {who} lost; what training costs "
        f"takes {SEEDS} seeds or more, {more} more training run{'s' if more > 1 else ''} here."
    )


def _check(targets: int, looks: InterimAnalyses, power: float, variance: float) -> None:
    chance = 1 - looks.level
    if targets < 1 or not chance < power < 1:
        raise UsageError(f"a plan needs at least 1 target and a power between {chance:g} and 1, not {targets}, {power}")
    if not 0 < variance <= 2:
        raise UsageError(f"the variance of a task's difference of success lies between 0 and 2, not {variance}")


def outlook(
    tasks: int,
    targets: int,
    looks: InterimAnalyses,
    pilot: Pilot | None = None,
    drop: float | None = None,
    within: float = FREE_WITHIN,
) -> list[str]:
    """Say which drop and which tax so many tasks show, whether "free" can be found, and how many seeds training takes.

    Args:
        tasks: of each target, the fewest.
        targets: how many.
        looks: how often the data are looked at.
        pilot: what is known; None for what is assumed until something is.
        drop: mean drop in points that is asked for, if any.
        within: the tax within which training is called free.
    """
    variance, before = (VARIANCE, BEFORE) if pilot is None else (pilot.variance, pilot.before)
    basis = (
        f"assumed until tasks are played: success of {100 * BEFORE:g} % before, outcomes of a task that correlate by "
        f"{CORRELATION:g} or more"
        if pilot is None
        else f"from {pilot.tasks} tasks of each: success of {100 * before:.0f} % before, correlation "
        f"{pilot.correlation:.2f}, variance of a task's difference {variance:.3f}"
    )
    of_each = f"{tasks} tasks of each of {targets} targets" if targets > 1 else f"{tasks} tasks of the target"
    if before <= 0:
        return [f"The base solves none of {of_each}: there is nothing to lose."]
    seen = detectable(tasks, targets, looks, variance)
    if seen >= 100 * before:
        return [f"{of_each} are too few to see any loss with some certainty ({basis})."]
    single = f", one of {detectable(tasks, 1, looks, variance):.1f} on a single target" if targets > 1 else ""
    said = [
        f"{of_each} show a mean drop of {seen:.1f} points, a tax of {seen / before:.0f} %{single}, with a chance of "
        f"{100 * POWER:g} % ({basis})."
    ]
    reached = free_within(tasks, targets, looks, variance, before)
    if reached > within:
        needed = int(tasks * (reached / within) ** 2) + 1
        free = f'"Free" within ±{100 * within:g} % would take {needed:,} tasks of each; '
        free += f"these reach ±{100 * reached:.0f} %."
    else:
        free = f'"Free" within ±{100 * within:g} % can be found with them.'
    said.append(free)
    measured = pilot is not None and pilot.seed_spread is not None
    spread = pilot.seed_spread if pilot is not None and pilot.seed_spread is not None else SEED_SPREAD
    shown = ", ".join(
        f"{seeds} training seeds show {detectable_of_training(seeds, tasks, targets, spread, variance):.1f} points"
        for seeds in SEEDS_SHOWN
    )
    told = "measured" if measured else "assumed"
    of_training = f"Of training, not of one checkpoint: {shown} ({told}: seeds {spread:.1f} points apart)"
    if drop is not None:
        seeds = seeds_needed(drop, tasks, targets, spread, variance)
        many = "more tasks, or over 100 seeds" if seeds is None else f"{seeds} seeds"
        of_training += f"; {drop:g} points take {many}"
    said.append(f"{of_training}.")
    return said

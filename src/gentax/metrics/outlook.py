"""What a comparison will be able to tell, in sentences: before it is played, and again when a pilot or a look is in."""

from __future__ import annotations

from gentax.metrics.statistics import (
    InterimAnalyses,
    Pilot,
    detectable,
    detectable_of_training,
    free_within,
    seeds_needed,
)
from gentax.metrics.statistics.power import BEFORE, CORRELATION, POWER, SEED_SPREAD, VARIANCE
from gentax.metrics.verdict import FREE_WITHIN

SEEDS_SHOWN = (3, 5, 8)


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

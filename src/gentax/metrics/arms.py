"""Arms and sources compared: what an arm changes against the plain one, and the OOD rank score of sources.

All on the same test tasks. OOD change and tax removed are different metrics (arXiv 2601.18217 defines the one and
mostly prints the other), so both are reported, each under its own name. An arm that sees the text of some targets is
judged by the others: the headline covers the targets that no arm touched, so that all arms are compared on the same
ones. Touched targets are reported separately.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from gentax.core import UsageError, unknown
from gentax.core.results import Record, repr_as_str
from gentax.metrics.episode_scores import error_free_scores
from gentax.metrics.statistics import (
    LEVEL,
    SEEDS_AND_TASKS,
    TASKS,
    Estimate,
    Labels,
    Undefined,
    Weights,
    holm,
    iqm,
    linear_combination,
    p_value,
    probability_of_improvement,
)
from gentax.metrics.tax import difference_of, ood_change, tax_removed

REPLICATES = 2_000
TIE = 0.5  # points within which sources share a rank (arXiv 2601.18217)
ONE_SEED = Undefined("it takes two training seeds or more")
NONE_TOUCHED = Undefined("no target was touched")


@dataclass(frozen=True)
class ArmReport(Record):
    """One arm beside the plain one, for one source. Targets are those that no arm touched, but where it says so."""

    arm: str
    targets: Estimate  # points: mean over targets of arm - plain
    targets_p: float  # of "no difference", corrected for the number of arms (Holm)
    source: Estimate | Undefined  # points: arm - plain at home
    ood_change: Estimate | Undefined  # fraction: Σ (arm - plain) / Σ plain
    tax_removed: Estimate | Undefined  # fraction: Σ (arm - plain) / Σ (init - plain)
    iqm: Estimate | Undefined  # percent: interquartile mean over seeds and targets
    better: Estimate | Undefined  # chance that a run of the arm beats a plain one on a target
    over: tuple[str, ...] = ()  # the targets of all of the above: the untouched ones; all where every one is touched
    touched: tuple[str, ...] = ()  # targets that this arm or another touched
    touched_removed: Estimate | Undefined = NONE_TOUCHED  # fraction: tax removed over the touched targets
    touched_targets: Estimate | Undefined = NONE_TOUCHED  # points: mean over the touched targets of arm - plain
    arms: int = 1  # that were compared with the plain one, which `targets_p` is corrected for

    @property
    def on_untouched(self) -> bool:
        """Whether what is said of the targets is of untouched ones."""
        return not set(self.over) & set(self.touched)

    _repr_pretty_ = repr_as_str

    def __str__(self) -> str:
        lines = {
            "targets, points": self.targets,
            "source, points": self.source,
            "OOD change": self.ood_change,
            "tax removed": self.tax_removed,
            "interquartile mean, %": self.iqm,
            "chance of being better": self.better,
        }
        if self.touched:
            lines["tax removed, touched targets"] = self.touched_removed
        width = max(map(len, lines))
        return "\n".join([f"{self.arm}, beside the plain arm", *(f"{k:<{width}}  {v}" for k, v in lines.items())])


def compare_arms(
    source: str,
    init: Mapping[str, np.ndarray],
    arms: Mapping[str, Mapping[str, np.ndarray]],
    rng: np.random.Generator,
    plain: str = "plain",
    *,
    clusters: Mapping[str, Labels] | None = None,
    touched: Set[str] = frozenset(),
) -> dict[str, ArmReport]:
    """Compare every arm but `plain` with it.

    Args:
        source: the domain trained on.
        init: domain -> success (K,) of the policy before RL; NaN marks an error.
        arms: arm -> domain -> success (S, K) or (K,) on the same tasks.
        rng: draws the replicates of the interquartile mean and of the probability of improvement.
        plain: the arm that the others are compared with.
        clusters: domain -> a label (K,) for each task; tasks with the same label share their content.
        touched: domains that entered training in any form, of any arm.

    Raises:
        UsageError: no arm but the plain one, no plain one, no target, tasks that do not pair, too many errors.
    """
    if plain not in arms:
        raise unknown("arm", plain, arms)
    if len(arms) < 2 or {"init", "chance"} & set(arms):
        raise UsageError("arms are compared with each other: it takes two of them, none called 'init' or 'chance'")
    scores, _ = error_free_scores({"init": init, **arms}, clusters)
    every = sorted(set(scores.roles[plain]) - {source})
    if not every:
        raise UsageError(f"no target: arms of {source} need at least one other domain")
    protected = tuple(t for t in every if t in touched)
    targets = [t for t in every if t not in touched] or every

    def mean_difference(arm: str, over: Sequence[str] = targets) -> Weights:
        return difference_of(arm, plain, over, 100 / len(over))

    def points(weights: Weights) -> Estimate:
        return linear_combination(scores, weights, "points")

    others = [arm for arm in arms if arm != plain]
    p_values = holm({arm: p_value(scores, mean_difference(arm)) for arm in others})
    away = Undefined(f"{source} was not evaluated")
    reports = {}
    for arm in others:
        runs, plain_runs = (np.stack([scores.roles[role][t].mean(1) for t in targets], axis=1) for role in (arm, plain))
        seeds = min(len(runs), len(plain_runs))
        reports[arm] = ArmReport(
            arm=arm,
            targets=points(mean_difference(arm)),
            targets_p=p_values[arm],
            source=points(mean_difference(arm, [source])) if source in scores.roles[arm] else away,
            ood_change=ood_change(arm, targets, plain).estimate(scores),
            tax_removed=tax_removed(arm, targets, plain).estimate(scores),
            iqm=iqm(runs, rng, REPLICATES) if seeds > 1 else ONE_SEED,
            better=probability_of_improvement(runs, plain_runs, rng, REPLICATES) if seeds > 1 else ONE_SEED,
            over=tuple(targets),
            touched=protected,
            touched_removed=tax_removed(arm, protected, plain).estimate(scores) if protected else NONE_TOUCHED,
            touched_targets=points(mean_difference(arm, protected)) if protected else NONE_TOUCHED,
            arms=len(others),
        )
    return reports


def ood_rank_scores(after: Mapping[str, Mapping[str, np.ndarray]], rng: np.random.Generator) -> dict[str, Estimate]:
    """Return each source's OOD rank score with a percentile interval over seeds and tasks.

    All sources played the same tasks: they are resampled together. A source's seeds are drawn once for all targets, so
    that what a training run does to all of them stays. As with every bootstrap of a few seeds (see
    `statistics.intervals`), the interval of three is too short; with one it covers tasks only.

    Args:
        after: source -> domain -> success (S, K) or (K,) in [0, 1]; the source itself may be among the domains.
        rng: draws the replicates.

    Raises:
        UsageError: fewer than 2 sources, no target that two of them are strangers to, a target that one of these was
            not evaluated on, scores that do not pair, sources of several numbers of seeds.
    """
    if len(after) < 2:
        raise UsageError(f"a rank needs at least 2 sources, not {len(after)}")
    scores = {s: {t: np.atleast_2d(np.asarray(x, float)) for t, x in targets.items()} for s, targets in after.items()}
    counts = sorted({len(x) for targets in scores.values() for x in targets.values()})
    if len(counts) != 1:
        raise UsageError(f"every source must have the same number of training seeds, not {counts}")
    (seeds,) = counts
    picks = {source: rng.integers(seeds, size=(REPLICATES, seeds)) for source in scores}
    ranks: dict[str, list[np.ndarray]] = {source: [] for source in scores}
    tasks = dict.fromkeys(scores, 0)
    for target in sorted({t for targets in scores.values() for t in targets}):
        ranked = [s for s in scores if s != target]
        if len(ranked) < 2:
            continue
        if lacking := [s for s in ranked if target not in scores[s]]:
            raise UsageError(f"every source must be evaluated on {target}; {lacking[0]} was not")
        shapes = {scores[s][target].shape for s in ranked}
        if len(shapes) > 1 or not all(np.isfinite(scores[s][target]).all() for s in ranked):
            raise UsageError(f"the scores on {target} must pair and be finite; their shapes are {sorted(shapes)}")
        scores_RSK = np.stack([scores[s][target] for s in ranked])
        drawn_BR = _resampled(scores_RSK, np.stack([picks[s] for s in ranked]), rng)
        success_BR = 100 * np.concatenate([scores_RSK.mean((1, 2))[None], drawn_BR])
        group_BR = tie_groups(success_BR)
        rank_BR = 1 + (group_BR[:, None] < group_BR[:, :, None]).sum(2)  # one more than there are ahead
        for source, rank_B in zip(ranked, rank_BR.T, strict=True):
            ranks[source].append(rank_B)
            tasks[source] += scores_RSK.shape[2]
    scored = {}
    for source, columns in ranks.items():
        if not columns:
            raise UsageError(f"{source} is ranked nowhere: at least two sources must be strangers to a target")
        total = np.sum(columns, axis=0)
        low, high = np.quantile(total[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        covers = SEEDS_AND_TASKS if seeds > 1 else TASKS
        scored[source] = Estimate(float(total[0]), float(low), float(high), covers, "rank", tasks[source], seeds)
    return scored


def _resampled(scores_RSK: np.ndarray, picks_RBS: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (B, R) success of R sources: the same tasks drawn for all of them, each with the seeds picked for it."""
    tasks = scores_RSK.shape[2]
    times_BK = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=REPLICATES)
    of_seeds_RBS = np.einsum("bk,rsk->rbs", times_BK, scores_RSK) / tasks
    return np.take_along_axis(of_seeds_RBS, picks_RBS, axis=2).mean(2).T


def tie_groups(success_BR: np.ndarray) -> np.ndarray:
    """Return (B, R) groups of tied sources, 0 the best; whoever is within `TIE` of the best of a group is in it."""
    group_BR, cutoff_B1 = np.zeros(success_BR.shape, int), np.array(np.inf)
    for _ in range(success_BR.shape[1]):
        left_BR = np.where(success_BR < cutoff_B1, success_BR, -np.inf)
        cutoff_B1 = left_BR.max(1, keepdims=True) - TIE - 1e-9
        group_BR += success_BR < cutoff_B1
    return group_BR

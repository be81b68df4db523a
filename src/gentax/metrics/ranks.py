"""The OOD rank score of arXiv 2601.18217: sources ranked on each target, the ranks summed; lower is better.

A source is not ranked on itself. The paper ranks sources that are within 0.5 points of each other alike and does not
say which rank comes after; here it is one more than are ahead (1, 1, 3), as in sports.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gentax.core.errors import UsageError
from gentax.metrics.statistics import LEVEL, SEEDS_AND_TASKS, TASKS, Estimate

TIE = 0.5  # points
REPLICATES = 2_000


def ood_rank_scores(
    after: Mapping[str, Mapping[str, np.ndarray]],
    rng: np.random.Generator,
    tie: float = TIE,
    level: float = LEVEL,
) -> dict[str, Estimate]:
    """Return each source's OOD rank score with a percentile interval over seeds and tasks.

    All sources played the same tasks: they are resampled together. A source's seeds are drawn once for all targets, so
    that what a training run does to all of them stays. As with every bootstrap of a few seeds (see
    `statistics.bootstrap`), the interval of three is too short; with one it covers tasks only.

    Args:
        after: source -> domain -> success (S, K) or (K,) in [0, 1]; the source itself may be among the domains.
        rng: draws the replicates.
        tie: points within which sources are tied with the best of their group.
        level: of the intervals.

    Raises:
        UsageError: fewer than 2 sources, no target that two of them are strangers to, a target that one of these was
            not evaluated on, scores that do not pair, sources of several numbers of seeds.
    """
    if len(after) < 2:
        raise UsageError(f"a rank needs at least 2 sources, not {len(after)}")
    made = {s: {t: np.atleast_2d(np.asarray(x, float)) for t, x in targets.items()} for s, targets in after.items()}
    counts = sorted({len(x) for targets in made.values() for x in targets.values()})
    if len(counts) != 1:
        raise UsageError(f"every source must have the same number of training seeds, not {counts}")
    (seeds,) = counts
    picks = {source: rng.integers(seeds, size=(REPLICATES, seeds)) for source in made}
    ranks: dict[str, list[np.ndarray]] = {source: [] for source in made}
    tasks = dict.fromkeys(made, 0)
    for target in sorted({t for targets in made.values() for t in targets}):
        ranked = [s for s in made if s != target]
        if len(ranked) < 2:
            continue
        if lacking := [s for s in ranked if target not in made[s]]:
            raise UsageError(f"every source must be evaluated on {target}; {lacking[0]} was not")
        shapes = {made[s][target].shape for s in ranked}
        if len(shapes) > 1 or not all(np.isfinite(made[s][target]).all() for s in ranked):
            raise UsageError(f"the scores on {target} must pair and be finite; their shapes are {sorted(shapes)}")
        scores_RSK = np.stack([made[s][target] for s in ranked])
        drawn_BR = _resampled(scores_RSK, np.stack([picks[s] for s in ranked]), rng)
        success_BR = 100 * np.concatenate([scores_RSK.mean((1, 2))[None], drawn_BR])
        for source, rank_B in zip(ranked, _ranks(success_BR, tie).T, strict=True):
            ranks[source].append(rank_B)
            tasks[source] += scores_RSK.shape[2]
    found = {}
    for source, columns in ranks.items():
        if not columns:
            raise UsageError(f"{source} is ranked nowhere: at least two sources must be strangers to a target")
        total = np.sum(columns, axis=0)
        low, high = np.quantile(total[1:], [(1 - level) / 2, (1 + level) / 2])
        covers = SEEDS_AND_TASKS if seeds > 1 else TASKS
        found[source] = Estimate(float(total[0]), float(low), float(high), covers, "rank", tasks[source], seeds, level)
    return found


def _resampled(scores_RSK: np.ndarray, picks_RBS: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (B, R) success of R sources: the same tasks drawn for all of them, each with the seeds picked for it."""
    tasks = scores_RSK.shape[2]
    times_BK = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=REPLICATES)
    of_seeds_RBS = np.einsum("bk,rsk->rbs", times_BK, scores_RSK) / tasks
    return np.take_along_axis(of_seeds_RBS, picks_RBS, axis=2).mean(2).T


def _ranks(success_BR: np.ndarray, tie: float) -> np.ndarray:
    """Return (B, R) ranks, 1 the best; whoever is within `tie` of the best of a group shares its rank."""
    order = np.argsort(-success_BR, axis=1, kind="stable")
    sorted_BR = np.take_along_axis(success_BR, order, axis=1)
    ranks = np.ones_like(sorted_BR)
    best = sorted_BR[:, 0].copy()
    for place in range(1, sorted_BR.shape[1]):
        new = sorted_BR[:, place] < best - tie - 1e-9
        best = np.where(new, sorted_BR[:, place], best)
        ranks[:, place] = np.where(new, place + 1, ranks[:, place - 1])
    out = np.empty_like(ranks)
    np.put_along_axis(out, order, ranks, axis=1)
    return out

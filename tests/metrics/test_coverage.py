"""The simulations of `benchmarks/coverage.py` measure the functions that are used, and these hold what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gentax.metrics.statistics import Scores, linear_combination
from gentax.metrics.tax import tax


@pytest.fixture
def coverage(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import coverage as script  # the benchmark, not the package of that name

    return script


@pytest.mark.parametrize("rate", [0.02, 0.4])
def test_many_studies_at_once_are_the_same_studies_one_by_one(coverage, rate):
    of = coverage.Setting(3, 32, 4, ((rate, rate / 2),), 0.3)
    (some,) = coverage.proving(np.random.default_rng(0), 12, of)
    _, init, known = coverage.kept_of(some)
    held, claims = coverage.holds(some), coverage.claimed(some, 0.95)
    defined = coverage.defined(init, known)
    taxes = iter(held["tax"])
    for n in range(12):
        roles = {
            role: {str(t): x[n] for t, x in enumerate(of_role)}
            for role, of_role in (("init", some.init), ("after", some.after))
        }
        labels = some.clusters.index_K.tolist()
        scores = Scores.of(clusters={str(t): labels for t in range(4)}, **roles)
        cost = tax("after", list("0123")).estimate(scores)
        assert bool(cost) == defined[n]
        assert claims[n] == (bool(cost) and cost.low > 0)
        if cost:
            assert next(taxes) == cost.contains(0.5)
        drop = linear_combination(scores, {("init", "3"): 100.0, ("after", "3"): -100.0}, "points")
        assert held["drop"][n] == drop.contains(100 * rate / 2)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.0), (3, 0.6), (5, 0.3)])
def test_intervals_cover_95_percent_of_clustered_studies_whose_seeds_move_all_targets(coverage, seeds, spread):
    of = coverage.Setting(seeds, 96, 5, ((0.5, 0.4), (0.3, 0.3)), spread)
    (some,) = coverage.proving(np.random.default_rng(1), 700, of)
    held = coverage.holds(some)
    assert 0.925 <= held["drop"].mean() <= 0.99
    assert 0.925 <= held["tax"].mean() <= 0.99


def test_costs_and_gains_are_seldom_claimed_where_there_are_none(coverage):
    of = coverage.Setting(3, 96, 5, ((0.2, 0.2),), 0.6)
    (some,) = coverage.proving(np.random.default_rng(2), 700, of)
    for gain in (False, True):
        assert coverage.claimed(some, 0.95, gain).mean() <= 0.05
        assert coverage.significant_targets(some, gain).any(1).mean() <= 0.05
    one = coverage.Setting(1, 96, 5, ((0.2, 0.2),), 0.6)  # which is why one seed is said to be a checkpoint
    (some,) = coverage.proving(np.random.default_rng(2), 300, one)
    assert coverage.claimed(some, 0.95).mean() > 0.15

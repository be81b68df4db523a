"""The intervals cover what they say, collapse nowhere, and refuse what is no score."""

import numpy as np
import pytest

from gentax.core import UsageError
from gentax.measure.statistics import (
    SEEDS_AND_TASKS,
    TASKS,
    Scores,
    bounded_mean,
    cluster_mean,
    difference,
    linear,
    ratio,
    success_rate,
)

NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(41)


def squash(x):
    return 1 / (1 + np.exp(-x))


def expected(logit, spread):
    """Success rate when logits are normal around `logit`."""
    return float(squash(logit + spread * NODES) @ NODE_WEIGHTS / NODE_WEIGHTS.sum())


def simulate(rng, before, after, seeds, tasks, seed_spread, task_spread=1.0):
    """Return scores of a made-up study, and the true rates before and after, for each domain.

    Tasks differ in difficulty, alike for both policies; training seeds shift the logit of each domain. With one seed
    the truth is that of that seed: its interval is said to cover tasks only.
    """
    init, tuned, truth = {}, {}, []
    for domain, rates in enumerate(zip(before, after, strict=True)):
        a, b = np.log(np.array(rates) / (1 - np.array(rates)))
        task_K, seed_S1 = rng.normal(0, task_spread, tasks), rng.normal(0, seed_spread, (seeds, 1))
        init[str(domain)] = (rng.random(tasks) < squash(a + task_K)).astype(float)
        tuned[str(domain)] = (rng.random((seeds, tasks)) < squash(b + task_K + seed_S1)).astype(float)
        spread = np.hypot(task_spread, seed_spread)
        truth.append(
            (
                expected(a, task_spread),
                expected(b, spread) if seeds > 1 else expected(b + seed_S1[0, 0], task_spread),
            )
        )
    return Scores.of(init=init, after=tuned), truth


@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize(("tasks", "seed_spread"), [(64, 0.0), (64, 0.4), (256, 0.15), (256, 0.5)])
def test_intervals_cover_95_percent(seeds, tasks, seed_spread):
    rng = np.random.default_rng(7)
    hits = {"rate": [], "drop": [], "tax": []}
    for before, after in (
        ((0.1, 0.12, 0.1), (0.4, 0.1, 0.06)),
        ((0.5, 0.4, 0.6), (0.7, 0.4, 0.5)),
        ((0.9,) * 3, (0.8,) * 3),
    ):
        for _ in range(130):
            scores, truth = simulate(rng, before, after, seeds, tasks, seed_spread)
            hits["rate"].append(success_rate(scores.roles["after"]["1"]).holds(100 * truth[1][1]))
            lost = linear(scores, {("init", "1"): 100.0, ("after", "1"): -100.0}, "points")
            hits["drop"].append(lost.holds(100 * (truth[1][0] - truth[1][1])))
            change = {("init", t): 1.0 for t in "12"} | {("after", t): -1.0 for t in "12"}
            tax = ratio(scores, change, {("init", t): 1.0 for t in "12"})
            if tax is not None:
                hits["tax"].append(tax.holds(1 - (truth[1][1] + truth[2][1]) / (truth[1][0] + truth[2][0])))
    for name, found in hits.items():
        assert np.mean(found) >= 0.93, name
    # And not by being so wide that they say nothing.
    assert np.mean([h for found in hits.values() for h in found]) <= 0.99


def test_one_seed_covers_tasks_only_and_says_so():
    rng = np.random.default_rng(0)
    before = (rng.random(100) < 0.5).astype(float)
    after_SK = (rng.random((3, 100)) < np.array([[0.2], [0.5], [0.8]])).astype(float)
    one, three = difference(before, after_SK[1]), difference(before, after_SK)
    assert (one.covers, one.seeds) == (TASKS, 1)
    assert (three.covers, three.seeds) == (SEEDS_AND_TASKS, 3)
    # Seeds at 20, 50 and 80 %: two degrees of freedom, a standard error of 17 points, a quantile of 4.3.
    assert three.high - three.low > 2 * 4.3 * 16


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(0)
    before = (rng.random(200) < 0.5).astype(float)
    after = np.where(rng.random(200) < 0.1, 1 - before, before)
    paired, shuffled = difference(before, after), difference(before, rng.permutation(after))
    assert paired.high - paired.low < 0.6 * (shuffled.high - shuffled.low)


def test_wilson_matches_the_printed_example():
    # Newcombe (1998), table I: 81 of 263 has the score interval 0.2553 to 0.3662.
    estimate = success_rate(np.repeat([1.0, 0.0], [81, 182]))
    assert (estimate.low, estimate.high) == pytest.approx((25.53, 36.62), abs=0.005)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_rates_at_the_edge_have_an_interval(rate):
    alike = np.full(64, rate)
    estimate = success_rate(alike)
    assert estimate.value == 100 * rate
    assert 3 < estimate.high - estimate.low < 8
    assert 0 <= estimate.low <= estimate.high <= 100
    unchanged = difference(alike, np.stack([alike] * 3))
    assert unchanged.value == 0
    assert 2 < unchanged.high < 8
    assert unchanged.low == pytest.approx(-unchanged.high)


def test_samples_of_a_task_count_as_their_mean():
    means = np.full(64, 0.5)  # every task succeeded at in half of its samples: better known than 64 coins
    assert 0 < success_rate(means).high - 50 < success_rate(np.repeat([0.0, 1.0], 32)).high - 50


def test_a_ratio_over_nothing_is_none():
    zero, some = np.zeros(64), np.repeat([0.0, 1.0], 32)
    scores = Scores.of(init={"a": zero}, after={"a": some})
    assert ratio(scores, {("after", "a"): 1.0}, {("init", "a"): 1.0}) is None
    same = Scores.of(init={"a": some}, after={"a": np.roll(some, 1)})
    assert ratio(same, {("after", "a"): 1.0}, {("init", "a"): 1.0, ("after", "a"): -1.0}) is None


def test_fieller_agrees_with_the_delta_method_when_the_denominator_is_sure():
    rng = np.random.default_rng(0)
    init, after = (rng.random(40_000) < 0.6).astype(float), (rng.random(40_000) < 0.3).astype(float)
    estimate = ratio(Scores.of(init={"a": init}, after={"a": after}), {("after", "a"): 1.0}, {("init", "a"): 1.0})
    r = after.mean() / init.mean()
    error = np.std(after - r * init) / init.mean() / 200
    assert estimate.value == pytest.approx(r)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * error, rel=0.01)


def test_states_of_one_task_are_no_independent_evidence():
    sums, counts = np.array([1000.0, 10.0, 2000.0, 30.0]), np.array([10.0, 10.0, 20.0, 30.0])
    estimate = cluster_mean(sums, counts, "characters")
    assert estimate.value == pytest.approx(3040 / 70)
    assert estimate.n == 4
    assert estimate.low < 0 < 100 < estimate.high


def test_a_bounded_mean_stays_within_its_bounds():
    estimate = bounded_mean(np.full(64, 50.0), 50.0, "steps")
    assert (estimate.value, estimate.high) == (50.0, 50.0)
    assert 45 < estimate.low < 49


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (np.array([0.0, np.nan, 1.0]), np.zeros(3), "NaN"),
        (np.zeros(3), np.zeros((2, 4)), "pair"),
        (np.zeros(3), np.full(3, 1.5), r"\[0, 1\]"),
        (np.zeros(1), np.zeros(1), "at least 2 tasks"),
        (np.zeros((2, 3)), np.zeros(3), "one row"),
    ],
)
def test_what_is_no_score_is_refused(before, after, says):
    with pytest.raises(UsageError, match=says):
        difference(before, after)


def test_an_unknown_role_or_domain_is_named():
    scores = Scores.of(init={"sokoban": np.zeros(3)}, after={"sokoban": np.zeros(3)})
    with pytest.raises(UsageError, match="did you mean 'sokoban'"):
        linear(scores, {("after", "sokobn"): 1.0}, "points")
    with pytest.raises(UsageError, match="unknown role"):
        linear(scores, {("plain", "sokoban"): 1.0}, "points")

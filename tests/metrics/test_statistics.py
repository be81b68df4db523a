"""The intervals cover what they say, collapse nowhere, and refuse what is no score."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from gentax.core import UsageError
from gentax.metrics.statistics import (
    SEEDS_AND_TASKS,
    TASKS,
    InterimAnalyses,
    Pilot,
    Scores,
    TaskClusters,
    above_chance,
    above_chance_tax,
    bounded_mean,
    cluster_mean,
    difference,
    estimate_pilot,
    few_seeds_caveat,
    free_within,
    holm,
    iqm,
    linear_combination,
    minimum_detectable_drop,
    minimum_detectable_drop_of_training,
    p_value,
    power_sentences,
    probability_of_improvement,
    ratio,
    required_sample_size,
    required_seeds,
    success_rate,
)
from gentax.metrics.statistics.scores import margin

GOLDEN = {
    "value": 0.16,
    "low": -0.2050133247,
    "high": 0.557026026,
    "iqm value": 30.20833333,
    "iqm low": 23.95833333,
    "iqm high": 37.5,
}


def test_one_seed_covers_tasks_only_and_says_so():
    rng = np.random.default_rng(0)
    before = (rng.random(100) < 0.5).astype(float)
    after_SK = (rng.random((3, 100)) < np.array([[0.2], [0.5], [0.8]])).astype(float)
    one, three = difference(before, after_SK[1]), difference(before, after_SK)
    assert (one.covers, one.seeds) == (TASKS, 1)
    assert (three.covers, three.seeds) == (SEEDS_AND_TASKS, 3)
    # Seeds at 20, 50 and 80 %: two degrees of freedom, a standard error of 17 points, a t_quantile of 4.3.
    assert three.high - three.low > 2 * 4.3 * 16


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


def test_means_of_states_and_of_lengths():
    sums, counts = np.array([1000.0, 10.0, 2000.0, 30.0]), np.array([10.0, 10.0, 20.0, 30.0])
    of_states = cluster_mean(sums, counts, "characters")
    assert (of_states.value, of_states.n) == (pytest.approx(3040 / 70), 4)  # four tasks, not 70 states
    assert of_states.low < 0 < 100 < of_states.high
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
        linear_combination(scores, {("after", "sokobn"): 1.0}, "points")
    with pytest.raises(UsageError, match="unknown role"):
        linear_combination(scores, {("plain", "sokoban"): 1.0}, "points")
    with pytest.raises(UsageError, match="at least one role"):
        linear_combination(scores, {}, "points")
    with pytest.raises(UsageError, match="level"):
        success_rate(np.array([0.0, 1.0, 1.0]), 1.0)


def test_the_margin_is_cochran_and_coxs():
    variance, df = np.array([2.0, 1.0, 3.0]), np.array([99.0, 49.0, 2.0])
    of_tasks = stats.t.ppf(0.975, 3**2 / (2**2 / 99 + 1**2 / 49))  # pooled by Satterthwaite
    weighted = (3 * of_tasks + 3 * stats.t.ppf(0.975, 2)) / 6
    seeds = np.array([False, False, True])
    assert margin(variance, df, seeds, 0.95) == pytest.approx(weighted * np.sqrt(6))
    assert margin(variance[:2], df[:2], seeds[:2], 0.95) == pytest.approx(of_tasks * np.sqrt(3))
    assert margin(np.zeros(3), df, seeds, 0.95) == 0


def test_clusters_of_one_task_are_the_textbook_and_larger_ones_count_once():
    rng = np.random.default_rng(3)
    before, after = ((rng.random(60) < p).astype(float) for p in (0.6, 0.4))
    alone = difference(before, after)
    assert difference(before, after, clusters=list(range(60))) == alone
    assert difference(before, after, clusters=[""] * 60) == alone  # contents that are not known
    # Every task three times: as much is known as from one of each.
    thrice = difference(np.repeat(before, 3), np.repeat(after, 3), clusters=np.repeat(np.arange(60), 3).tolist())
    assert (thrice.low, thrice.high) == pytest.approx((alone.low, alone.high), abs=0.15)
    naive = difference(np.repeat(before, 3), np.repeat(after, 3))
    assert naive.high - naive.low < 0.65 * (thrice.high - thrice.low)
    rate, once = success_rate(np.repeat(before, 3), clusters=np.repeat(np.arange(60), 3).tolist()), success_rate(before)
    assert (rate.low, rate.high) == pytest.approx((once.low, once.high), abs=0.7)


def test_cluster_variances_follow_bell_and_mccaffrey():
    rng = np.random.default_rng(4)
    labels = [0, 0, 0, 1, 2, 2, 3, 3, 3, 3]
    clusters, y = TaskClusters.of(labels, 10), rng.random(10)
    hat = np.full((10, 10), 0.1)
    total, weights = 0.0, []
    for g in range(4):
        of = np.array(labels) == g
        values, vectors = np.linalg.eigh(np.eye(of.sum()) - hat[np.ix_(of, of)])
        root = vectors @ np.diag(values**-0.5) @ vectors.T  # CR2's A
        total += (root @ (y - y.mean())[of]).sum() ** 2 / 100
        weights.append((np.eye(10) - hat)[:, of] @ root @ np.ones(of.sum()) / 10)
    residual = (y - y.mean())[None]
    assert float(clusters.scatter(residual)[0, 0]) / 100 == pytest.approx(total)
    eigen = np.linalg.eigvalsh(np.array(weights) @ np.array(weights).T)
    assert clusters.df == pytest.approx(eigen.sum() ** 2 / (eigen**2).sum())
    assert TaskClusters.of([1, 1, 2, 2, 3, 3], 6).df == pytest.approx(2)
    with pytest.raises(UsageError, match="one and the same content"):
        TaskClusters.of(["a"] * 5, 5)
    with pytest.raises(UsageError, match="6 tasks and 5"):
        Scores.of(init={"d": np.ones(6)}, clusters={"d": ["a"] * 5})
    with pytest.raises(UsageError, match="did you mean 'dd'"):
        Scores.of(init={"dd": np.ones(6)}, clusters={"ddd": ["a"] * 6})


def test_above_chance_is_what_random_play_leaves_to_be_won():
    rates = {p: (np.arange(200) < 2 * p).astype(float) for p in (0, 20, 60, 100)}
    found = above_chance(rates[60], rates[20])
    assert found.value == pytest.approx(50)
    assert found.low < 50 < found.high <= 100
    assert above_chance(rates[20], rates[20]).contains(0)
    assert above_chance(rates[0], rates[20]).value == pytest.approx(-25)
    assert above_chance(rates[60], rates[100]) is None
    scores = Scores.of(init={"a": rates[60]}, after={"a": rates[20]}, chance={"a": rates[20]})
    assert above_chance_tax(scores, ["a"]).value == pytest.approx(1)
    two = Scores.of(
        init={"a": rates[60], "b": rates[60]},
        after={"a": rates[20], "b": rates[60]},
        chance={"a": rates[20], "b": rates[0]},
    )
    assert above_chance_tax(two, ["a", "b"]).value == pytest.approx(1 - 0.6 / (0.5 + 0.6))
    nothing = Scores.of(init={"a": rates[20]}, after={"a": rates[20]}, chance={"a": rates[20]})
    assert above_chance_tax(nothing, ["a"]) is None


def test_a_p_value_is_the_level_of_the_interval_that_touches_zero():
    rng = np.random.default_rng(5)
    after_SK = (rng.random((3, 128)) < np.array([[0.25], [0.2], [0.3]])).astype(float)
    scores = Scores.of(init={"0": (rng.random(128) < 0.45).astype(float)}, after={"0": after_SK})
    form = {("init", "0"): 100.0, ("after", "0"): -100.0}
    p = p_value(scores, form)
    touching = linear_combination(scores, form, "points", level=1 - p)
    assert min(abs(touching.low), abs(touching.high)) < 1e-6 * abs(touching.value)
    assert p_value(scores, {("init", "0"): 1.0, ("after", "0"): 0.0}) < 1e-3
    for _ in range(50):  # equal means that differ by rounding once left the root finder without a change of sign
        means = rng.integers(0, 4, 40) / 3
        scores = Scores.of(init={"a": means}, after={"a": rng.permutation(means)})
        assert p_value(scores, {("init", "a"): 1.0, ("after", "a"): -1.0}) == pytest.approx(1.0, abs=1e-6)


def test_seeds_that_agree_are_not_certain():
    apart = np.zeros((2, 32))
    apart[0, :4] = apart[1, 4:8] = 1  # the same rate on other tasks: all of the variance looks like interaction
    assert success_rate(apart).low < 8 < 18 < success_rate(apart).high


def test_holm_follows_the_printed_procedure():
    # Three of five hypotheses stand at 5 %: 0.001 x 5, 0.01 x 4, 0.012 x 3; then 0.03 x 2 = 0.06 and all after it.
    adjusted = holm({"a": 0.01, "b": 0.001, "c": 0.03, "d": 0.04, "e": 0.012})
    assert adjusted == pytest.approx({"a": 0.04, "b": 0.005, "c": 0.06, "d": 0.06, "e": 0.04})
    assert list(adjusted) == ["a", "b", "c", "d", "e"]
    with pytest.raises(UsageError, match="p-value of x"):
        holm({"x": float("nan")})


def test_the_interquartile_mean_is_the_trimmed_mean_of_runs():
    runs_SD = np.random.default_rng(1).random((5, 8))
    found = iqm(runs_SD, np.random.default_rng(2), replicates=500)
    assert found.value == pytest.approx(100 * stats.trim_mean(runs_SD, 0.25, axis=None))
    assert found.low < found.value < found.high
    assert iqm(runs_SD, np.random.default_rng(2), replicates=500) == found
    assert iqm(runs_SD, np.random.default_rng(3), replicates=500) != found


def test_the_probability_of_improvement_counts_pairs():
    better, worse = np.array([[0.5], [0.6], [0.7]]), np.array([[0.1], [0.6], [0.2]])
    found = probability_of_improvement(better, worse, np.random.default_rng(0), 200)
    assert found.value == pytest.approx((3 * 2 + 0 + 0.5 + 1) / 9)
    assert probability_of_improvement(better, better, np.random.default_rng(0), 200).value == pytest.approx(0.5)
    with pytest.raises(UsageError, match="at least 2 seeds"):
        probability_of_improvement(better[:1], worse, np.random.default_rng(0))
    with pytest.raises(UsageError, match="same domains"):
        probability_of_improvement(better, np.ones((3, 2)), np.random.default_rng(0))
    for broken in (np.full((2, 2), np.nan), np.full((2, 2), 2.0), np.zeros((2, 0)), np.zeros(3)):
        with pytest.raises(UsageError, match="interquartile mean"):
            iqm(broken, np.random.default_rng(0))


def test_looks_have_the_published_critical_values():
    # O'Brien-Fleming-like spending of a two-sided 5 %, five equal looks (Jennison & Turnbull 2000, and ldbounds).
    assert InterimAnalyses(5).critical_values == pytest.approx((4.877, 3.357, 2.680, 2.290, 2.031), abs=1e-3)
    assert InterimAnalyses(1).critical_values == pytest.approx((1.95996,), abs=1e-4)
    assert InterimAnalyses(5).level_at(1) > InterimAnalyses(5).level_at(5) > 0.95
    assert InterimAnalyses(1).level_at(1) == pytest.approx(0.95)
    assert [InterimAnalyses(5).tasks(k, 128) for k in range(1, 6)] == [26, 51, 77, 102, 128]


def test_looking_five_times_keeps_the_error_and_the_power():
    rng, looks = np.random.default_rng(6), InterimAnalyses(5)
    z = np.array(looks.critical_values)
    drift = looks.drift(0.8)
    steps = rng.normal(size=(40_000, 5)) / np.sqrt(5)
    walk = steps.cumsum(1) / np.sqrt(np.arange(1, 6) / 5)
    assert (np.abs(walk) > z).any(1).mean() == pytest.approx(0.05, abs=0.004)
    moved = (steps + drift / 5).cumsum(1) / np.sqrt(np.arange(1, 6) / 5)
    assert (np.abs(moved) > z).any(1).mean() == pytest.approx(0.8, abs=0.01)


def test_a_plan_holds_what_it_promises():
    plan = required_sample_size(10, 2, InterimAnalyses(1), variance=0.3)
    assert plan == int(np.ceil((2.8016 / 0.1) ** 2 * 0.3 / 2))
    assert minimum_detectable_drop(plan, 2, InterimAnalyses(1), variance=0.3) <= 10
    assert minimum_detectable_drop(plan - 2, 2, InterimAnalyses(1), variance=0.3) > 10
    assert required_sample_size(10, 2, InterimAnalyses(5)) > required_sample_size(10, 2, InterimAnalyses(1))
    for drop in (0, -1, 101, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 100"):
            required_sample_size(drop, 2, InterimAnalyses(1))


def test_a_pilot_knows_the_variance_of_its_tasks():
    rng = np.random.default_rng(10)
    init = {t: (rng.random(100) < 0.4).astype(float) for t in "ab"}
    after = {t: np.where(rng.random((3, 100)) < 0.9, x, 0.0) for t, x in init.items()}
    scores = Scores.of(init=init, after=after)
    pilot = estimate_pilot(scores, ["a", "b"])
    assert (pilot.tasks, pilot.targets) == (100, 2)
    assert 0.005 < pilot.variance < 0.06
    assert pilot.correlation > 0.8
    assert pilot.seed_spread > 0
    one = {t: x[:1] for t, x in after.items()}
    thrice = Scores.of(
        init={t: np.repeat(x, 3) for t, x in init.items()},
        after={t: np.repeat(x, 3, axis=1) for t, x in one.items()},
        clusters={t: np.repeat(np.arange(100), 3).tolist() for t in "ab"},
    )
    alone, clustered = estimate_pilot(Scores.of(init=init, after=one), ["a", "b"]), estimate_pilot(thrice, ["a", "b"])
    assert alone.seed_spread is None
    assert clustered.design_effect == pytest.approx(3, rel=0.05)
    assert clustered.variance == pytest.approx(3 * alone.variance, rel=0.1)
    assert Pilot.from_json(alone.to_json(), "x").variance == pytest.approx(alone.variance)


def test_seeds_and_free_are_planned():
    assert required_seeds(20, 128, 5) == 3
    assert required_seeds(5, 512, 5) > 3
    assert required_seeds(1, 128, 5) is None
    assert minimum_detectable_drop_of_training(5, 128, 5) < minimum_detectable_drop_of_training(3, 128, 5)
    # Simulated: with no tax the interval lies within ±x in 80 % of studies.
    rng, x = np.random.default_rng(11), free_within(200, 4, InterimAnalyses(1), 0.1, 0.4)
    error = np.sqrt(0.1 / 800) / 0.4
    assert np.mean(np.abs(rng.normal(0, error, 20_000)) + 1.96 * error < x) == pytest.approx(0.8, abs=0.01)
    assert "2 more training runs" in few_seeds_caveat(2, 2)
    assert few_seeds_caveat(1, 1).startswith("With 1 training seed the report says what this checkpoint lost")
    assert few_seeds_caveat(3, 1) is None


PILOT = Pilot(tasks=32, targets=5, before=0.4, variance=0.08, correlation=0.8, design_effect=1.1)


def test_power_is_said_before_a_pilot_and_after_it():
    said = power_sentences(128, 5, InterimAnalyses(5))
    drop = minimum_detectable_drop(128, 5, InterimAnalyses(5))
    assert f"a mean drop of {drop:.1f} points, a tax of {drop / 0.3:.0f} %" in said[0]
    assert "assumed until tasks are played: base success of 30 %" in said[0]
    assert 'Showing that training is "free" within ±5 % would take ' in said[1]
    assert "(assumed: seeds 3.0 points apart)" in said[2]
    said = power_sentences(128, 5, InterimAnalyses(5), replace(PILOT, seed_spread=1.5), drop=6.0)
    assert "from 32 tasks of each: base success of 40 %, correlation 0.80, variance of a task's" in said[0]
    assert "(measured: seeds 1.5 points apart); 6 points take " in said[2]
    assert 'training is "free" within ±5 %.' in power_sentences(4000, 5, InterimAnalyses(1), PILOT)[1]
    assert "too few to detect any loss" in power_sentences(2, 1, InterimAnalyses(5), PILOT)[0]
    assert "nothing to lose" in power_sentences(128, 5, InterimAnalyses(5), replace(PILOT, before=0.0))[0]


def test_the_same_digits_everywhere():
    """Written out: another machine, or another order of sums, must give these."""
    rng = np.random.default_rng(20260121)
    init, after = (rng.random(64) < 0.4).astype(float), (rng.random((3, 64)) < 0.3).astype(float)
    scores = Scores.of(init={"a": init, "b": init[::-1]}, after={"a": after, "b": after[:, ::-1]})
    share = ratio(scores, {("init", "a"): 1.0, ("after", "a"): -1.0}, {("init", "b"): 1.0})
    drawn = iqm(after.reshape(3, 8, 8).mean(2), np.random.default_rng(7), 1000)
    digits = {k: v for k, v in share.to_json().items() if k in ("value", "low", "high")}
    digits |= {f"iqm {k}": v for k, v in drawn.to_json().items() if k in ("value", "low", "high")}
    assert digits == GOLDEN

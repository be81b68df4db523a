"""The measures follow DESIGN's formulae; errors leave in pairs; what has no value says why."""

import json

import numpy as np
import pytest

from gentax.core import Episode, Outcome, Task, UsageError
from gentax.metrics.episode_scores import task_success
from gentax.metrics.statistics import Scores, ratio
from gentax.metrics.tax import drop, gain, ood_change, success, tax, tax_removed, tax_report


def rates(count=100, **percent):
    """Scores of `count` tasks of which the first `percent` of 100 succeed."""
    return {d: (np.arange(count) < p * count / 100).astype(float) for d, p in percent.items()}


INIT = rates(home=30, a=40, b=60)
AFTER = rates(home=70, a=20, b=50)


def test_the_formulae():
    report = tax_report("home", INIT, AFTER)
    measures = (report.delta_id, *report.drop.values(), report.tax, report.tax_rate, report.init["a"])
    assert [one.value for one in measures] == pytest.approx([40, 20, 10, 1 - 70 / 100, 15 / 40, 40])
    assert (report.targets, report.undefined) == (("a", "b"), {})


def test_seeds_are_averaged():
    after = {d: np.stack([x, np.zeros_like(x), np.ones_like(x)]) for d, x in AFTER.items()}
    report = tax_report("home", INIT, after)
    assert report.seeds == 3
    assert report.after["home"].value == pytest.approx((70 + 0 + 100) / 3)
    after["a"][1, 5] = np.nan  # an error of one seed takes the task from all
    report = tax_report("home", INIT | rates(50, b=60), after | {"b": after["b"][:, :50]})
    assert (report.excluded_tasks["a"], report.tasks) == (1, {"home": 100, "a": 99, "b": 50})


def test_the_tax_rate_is_undefined_without_a_gain():
    report = tax_report("home", INIT, AFTER | rates(home=31))
    assert report.delta_id.contains(0)
    assert not report.tax_rate
    assert str(report.tax_rate) == "undefined: the interval of ΔID contains 0"
    assert "ΔID" in report.undefined["tax_rate"]


def test_the_tax_is_undefined_when_there_was_nothing_to_lose():
    report = tax_report("home", INIT | rates(a=0, b=0), AFTER)
    assert not report.tax
    assert report.undefined == {"tax": report.tax.reason}
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["tax"] is None
    away = tax_report("elsewhere", INIT, AFTER)
    assert (away.targets, set(away.undefined)) == (("a", "b", "home"), {"delta_id", "tax_rate"})


def test_errors_leave_in_pairs_and_are_counted():
    init, after = ({d: x.copy() for d, x in both.items()} for both in (INIT, AFTER))
    init["a"][0] = np.nan  # a success before and after
    after["a"][99] = np.nan
    report = tax_report("home", init, after)
    assert (report.excluded_tasks, report.tasks["a"]) == ({"home": 0, "a": 2, "b": 0}, 98)
    assert [report.init["a"].value, report.after["a"].value] == pytest.approx([100 * 39 / 98, 100 * 19 / 98])
    init["a"][:3] = np.nan
    after["a"][99] = 0
    with pytest.raises(UsageError, match="3 of 100 tasks on a"):
        tax_report("home", init, after)
    assert tax_report("home", init, after, max_error_share=0.05).excluded_tasks["a"] == 3


@pytest.mark.parametrize(
    ("init", "after"),
    [(INIT, {"home": INIT["home"]}), (rates(home=1), rates(home=2)), (INIT, AFTER | rates(50, a=10))],
)
def test_what_cannot_be_compared_is_refused(init, after):
    with pytest.raises(UsageError):
        tax_report("home", init, after)


def test_ood_change_and_tax_removed_are_two_things():
    scores = Scores.of(init=rates(s=10, a=50, b=50), plain=rates(s=90, a=30, b=30), arm=rates(s=90, a=40, b=35))
    assert ood_change("arm", "ab", "plain").estimate(scores).value == pytest.approx(15 / 60)
    assert tax_removed("arm", "ab", "plain").estimate(scores).value == pytest.approx(15 / 40)


def test_the_kept_share_is_symmetric_in_its_logarithm_and_fiellers_near_0():
    rng = np.random.default_rng(9)
    init, after = (rng.random(300) < 0.6).astype(float), (rng.random(300) < 0.3).astype(float)
    found = tax("after", ["a"]).estimate(Scores.of(init={"a": init}, after={"a": after}))
    kept, least, most = 1 - found.value, 1 - found.high, 1 - found.low
    assert kept / least == pytest.approx(most / kept)
    nothing = Scores.of(init={"a": init}, after={"a": np.zeros(300)})
    lost, fieller = tax("after", ["a"]).estimate(nothing), ratio(nothing, {("after", "a"): 1.0}, {("init", "a"): 1.0})
    assert (lost.high, lost.low) == (1.0, pytest.approx(1 - fieller.high))
    assert not tax("after", ["a"]).estimate(Scores.of(init={"a": np.zeros(300)}, after={"a": after}))


def test_no_interval_lies_beyond_what_success_can_be():
    few = Scores.of(init={"a": [0.0, 1.0, 0.0]}, after={"a": [0.0, 1.0, 1.0], "home": [1.0, 1.0, 0.0]})
    assert (success("after", ["a"]).estimate(few).high, drop("after", ["a"]).estimate(few).low) == (100, -100)
    both = Scores.of(init={"a": [0.0, 1.0], "home": [0.0, 1.0]}, after={"a": [1.0, 0.0], "home": [1.0, 0.0]})
    net = gain("after", "home").minus(drop("after", ["a"]), both).estimate(both)
    assert (net.low, net.high) == (-200, 200)


def test_successes_average_samples_and_keep_errors_apart():
    tasks = [Task("d", "l", "test", i) for i in range(3)]

    def play(task, sample, outcome):
        return Episode(task, sample, "", (), outcome)

    won, lost, broke = Outcome.SUCCESS, Outcome.FAILURE, Outcome.ERROR
    episodes = [play(tasks[1], 0, won), play(tasks[0], 0, won), play(tasks[0], 1, lost), play(tasks[2], 0, broke)]
    np.testing.assert_array_equal(task_success(episodes, tasks), [0.5, 1.0, np.nan])
    with pytest.raises(UsageError, match="d/l/test/2"):
        task_success(episodes[:3], tasks)


def test_random_play_that_breaks_takes_no_tasks_from_the_others():
    chance = rates(a=10, b=10)
    chance["a"][:50] = np.nan
    chance["b"][0] = np.nan
    report = tax_report("home", INIT, AFTER, chance=chance)
    assert set(report.above_chance) == {"b"}
    assert report.tasks == {"home": 100, "a": 100, "b": 99}
    found = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert found["above_chance"]["b"]["after"]["value"] < found["after"]["b"]["value"]
    assert found["pilot"]["targets"] == 2
    assert found["bounds"] is None


def test_clusters_follow_the_tasks_that_are_left():
    init = {d: x.copy() for d, x in INIT.items()}
    init["a"][0] = np.nan
    labels = {"a": ["x", "x", *map(str, range(98))]}
    report = tax_report("home", init, AFTER, clusters=labels)
    assert report.clusters == {"home": 100, "a": 99, "b": 100}
    with pytest.raises(UsageError, match="a has 100 tasks and 3 cluster labels"):
        tax_report("home", INIT, AFTER, clusters={"a": ["x", "y", "z"]})
    rows = np.repeat([1.0, 0.0], 50)
    alone, clustered = (
        tax_report("home", {"home": rows, "a": rows}, {"home": rows, "a": np.roll(rows, 8)}, clusters=c).drop["a"]
        for c in (None, {"a": (np.arange(100) // 4).tolist()})
    )
    assert clustered.high - clustered.low > 1.5 * (alone.high - alone.low)

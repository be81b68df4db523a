"""Where two policies part: the step, the curve with what ended together censored, the kinds, what became of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fake_episodes import played

from gentax.core import UsageError
from gentax.metrics.behaviour import parting_sentence, partings
from gentax.metrics.behaviour.parting import first_word, pair
from gentax.metrics.behaviour.survival import curve


def test_a_pair_parts_at_the_first_action_that_differs():
    one = pair(played(0, "a>B", "b>C", "c>D"), played(0, "a>B", "x>E", "c>D"))
    assert one.parted
    assert one.last == 2
    assert [step.action for step in one.steps] == ["b", "x"]


def test_a_pair_that_ends_together_or_reads_otherwise_does_not_part():
    same = played(0, "a>B", "b>C", "c>D")
    assert (pair(same, same).last, pair(same, same).parted) == (3, False)
    unlike = pair(same, played(0, "a>B", "b>Z", "x>D"))
    assert (unlike.last, unlike.parted) == (2, False)


def test_the_curve_is_kaplan_and_meiers():
    # Freireich's 21 patients under 6-MP, the textbook's example of the estimator and of Greenwood's variance.
    weeks = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
    relapse = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    found = curve(weeks, relapse, range(21))
    share = {week: found.together[week - 1].value / 100 for week in (6, 7, 10, 13, 16, 22, 23)}
    assert share == pytest.approx({6: 0.857, 7: 0.807, 10: 0.753, 13: 0.690, 16: 0.627, 22: 0.538, 23: 0.448}, abs=6e-4)
    assert found.at_risk[5] == 21
    assert found.at_risk[22] == 6
    assert found.median == 23
    # Wilson's limits for as many patients as have Greenwood's variance, 0.0763² at week 6.
    trials = share[6] * (1 - share[6]) / 0.0763**2
    z = 1.959964
    middle = (share[6] + z**2 / trials / 2) / (1 + z**2 / trials)
    half = z * np.sqrt(share[6] * (1 - share[6]) / trials + z**2 / trials**2 / 4) / (1 + z**2 / trials)
    assert found.together[5].low / 100 == pytest.approx(middle - half, abs=1e-3)
    assert found.together[5].high / 100 == pytest.approx(middle + half, abs=1e-3)


def test_limits_of_the_curve_do_not_collapse():
    found = curve([3] * 30, [True] * 30, range(30))
    assert (found.together[0].value, found.together[2].value) == (100, 0)
    assert 80 < found.together[0].low < 95
    assert 5 < found.together[2].high < 20
    assert (found.median, found.median_low, found.median_high) == (3, 3, 3)
    never = curve([5] * 10, [False] * 10, range(10))
    assert (never.median, never.median_low) == (None, None)


def test_samples_of_a_task_are_no_independent_evidence():
    last, parted = [1, 2, 3, 4] * 10, [True] * 40
    alone = curve(last, parted, range(40))
    copied = curve(np.repeat(last, 4), np.repeat(parted, 4), np.repeat(np.arange(40), 4).tolist())
    for one, other in zip(alone.together, copied.together, strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def test_the_curve_and_its_median_cover():
    rng = np.random.default_rng(5)
    hazard = np.array([0.05, 0.1, 0.15, 0.2, 0.2, 0.25, 0.25, 0.3])
    true = 100 * np.cumprod(1 - hazard)
    median = int(np.argmax(true <= 50)) + 1
    rounds, held, medians = 600, np.zeros(8), 0
    for _ in range(rounds):
        parts = rng.random((60, 8)) < hazard
        parting = np.where(parts.any(1), parts.argmax(1) + 1, 9)
        ends = rng.integers(2, 9, 60)
        found = curve(np.minimum(parting, ends), parting <= ends, range(60))
        held[: len(found.together)] += [one.holds(t) for one, t in zip(found.together, true, strict=False)]
        medians += found.median_low <= median <= (found.median_high or 99)
    assert (held[:6] / rounds > 0.925).all()
    assert medians / rounds > 0.93


def made():
    """Forty pairs: 10 never part, 20 part at step 1 where the second loses, 10 at step 3 where nothing changes."""
    before, after = [], []
    for n in range(40):
        before.append(played(n, "go>B", "go>C", "take lamp>F", won=True))
        late = "take box!" if n < 30 else "take lamp>F"
        if n < 20:
            after.append(played(n, "open door!", "go>B", "go>C"))
        else:
            after.append(played(n, "go>B", "go>C", late, won=True))
    return before, after


def test_partings_say_where_at_what_and_what_became_of_them():
    found = partings(*made())["room"]
    assert (found.pairs, found.parted.value) == (40, 75)
    assert [one.value for one in found.curve.together] == pytest.approx([50, 50, 25])
    assert [(kind.before, kind.after, kind.count) for kind in found.kinds] == [("go", "open", 20), ("take", "take", 10)]
    assert found.kinds[0].share.value == pytest.approx(100 * 2 / 3)
    assert [one.value for one in found.accepted] == [100, 0]
    assert found.accepted_change.value == -100
    assert found.early == 1
    groups = {group.name: (group.pairs, group.before.value, group.after.value) for group in found.groups}
    assert groups == {"early": (20, 100, 0), "late": (10, 100, 100), "never": (10, 100, 100)}
    assert found.early_less_late.value == -100
    assert -85 < found.early_less_late.high < -40
    json.dumps(found.to_json(), allow_nan=False)
    assert "diverge in 75 % of 40 paired episodes" in parting_sentence(found)


def test_policies_that_do_the_same_never_part():
    before, _ = made()
    found = partings(before, before)["room"]
    assert (found.parted.value, found.kinds, found.early) == (0, (), None)
    assert "the same actions in all 40 paired episodes" in parting_sentence(found)
    json.dumps(found.to_json(), allow_nan=False)


def test_tasks_that_start_otherwise_are_refused():
    before = [played(n, "go>B") for n in range(3)]
    after = [played(n, "go>B", start="Z") for n in range(3)]
    with pytest.raises(UsageError, match="room/small/test/0 does not start alike"):
        partings(before, after)


def test_the_first_word_of_an_action():
    words = [first_word(text) for text in ("click[b0140]", "Go to shelf 1", "", '{"name": "up"}', "→")]
    assert words == ["click", "go", "(nothing)", "name", "→"]

"""Sentences claim what the interval allows, and "undecided" when it allows both."""

from dataclasses import replace

import numpy as np
import pytest

from gentax.metrics.arms import ArmReport
from gentax.metrics.episode_scores import Truncation
from gentax.metrics.statistics import Estimate, Undefined
from gentax.metrics.tax import tax_report
from gentax.metrics.verdict import (
    Verdict,
    arm_sentence,
    headline,
    number,
    sentences,
    signed,
    target_sentences,
    verdict,
)


def tax(low, high):
    return Estimate((low + high) / 2, low, high, "tasks", "fraction", 100)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.03, Verdict.COSTS),
        (-0.3, -0.1, Verdict.TRANSFERS),
        (-0.04, 0.03, Verdict.FREE),
        (-0.04, 0.2, Verdict.UNDECIDED),
        (-0.2, 0.04, Verdict.UNDECIDED),
    ],
)
def test_verdicts(low, high, expected):
    assert verdict(tax(low, high)) is expected
    assert verdict(Undefined("why")) is Verdict.UNDECIDED


def report(home, target, tasks=256, seeds=1):
    rng = np.random.default_rng(0)
    init = {"sokoban": rng.random(tasks) < 0.3, "sciworld": rng.random(tasks) < 0.5}
    init = {d: x.astype(float) for d, x in init.items()}
    after = {"sokoban": rng.random((seeds, tasks)) < home, "sciworld": rng.random((seeds, tasks)) < target}
    return tax_report("sokoban", init, {d: x.astype(float) for d, x in after.items()})


def test_what_cannot_be_claimed_of_a_domain_is_said_once():
    scores = {d: np.tile([0.0, 1.0], 40) for d in ("sokoban", "mine:Env", "yours:Env")}
    contents = {"sokoban": [str(n) for n in range(80)], "mine:Env": [""] * 80, "yours:Env": [""] * 80}
    said = " ".join(sentences(tax_report("sokoban", scores, scores, clusters=contents)))
    assert said.count("mine:Env, yours:Env do not say what their tasks are made of") == 1
    assert "nobody can claim that test tasks are new" in said
    known = tax_report("sokoban", scores, scores, clusters=dict.fromkeys(scores, contents["sokoban"]))
    assert "nobody can claim" not in " ".join(sentences(known))


def test_one_seed_is_a_checkpoint_and_three_are_training():
    one, two, three = (sentences(report(0.8, 0.2, seeds=n)) for n in (1, 2, 3))
    assert one[0].startswith("This checkpoint lost ")
    assert one[0].endswith(" of the success on 1 other domain.")
    assert two[0].startswith(("These two checkpoints lost", "Undecided whether these two checkpoints lost"))
    assert three[0].startswith("Training on sokoban costs ")
    assert "raining on sokoban" not in " ".join([*one, *two])
    assert sum("takes 3 training seeds or more" in said for said in one) == 1
    assert "over 512 tasks and 3 training seeds" in three[-1]
    assert [said.partition(":")[0] for said in one[1:4]] == [
        "On sokoban itself", "On sciworld", "For each point gained on sokoban"
    ]  # fmt: skip


def test_a_gain_elsewhere_is_a_transfer_with_its_sign_turned():
    r = report(0.8, 0.9)
    said = sentences(r)
    assert "−" not in " ".join(said)
    assert said[0].startswith("This checkpoint raised success on 1 other domain by ")
    assert said[2].startswith(f"On sciworld: {number(-r.drop['sciworld'].value)} points gained (")
    assert sentences(report(0.8, 0.9, seeds=3))[0].startswith("Training on sokoban transfers: ")


def test_targets_are_one_line_for_what_stands_and_one_for_the_rest():
    rng = np.random.default_rng(1)
    init = {d: (rng.random(200) < 0.5).astype(float) for d in ("home", "a", "b", "c", "d")}
    after = init | {"a": init["a"] * (rng.random(200) < 0.3), "b": np.roll(init["b"], 1)}
    said = target_sentences(tax_report("home", init, after))
    assert len(said) == 2
    assert said[0].startswith("Significant changes on targets, in points, corrected for 4 targets (Holm): a ")
    assert said[1].startswith("Not significant, in points: b between ")
    (nothing,) = target_sentences(tax_report("home", init, init))
    assert nothing.startswith("No single target changed significantly, corrected for 4 targets (Holm). Uncorrected, ")


@pytest.mark.parametrize(
    ("removed", "expected"),
    [
        (tax(0.4, 0.8), "it removed 60 % of the tax (95 % interval 40 % to 80 %); on the source"),
        (tax(-0.3, -0.1), "it added 20 % to the tax (95 % interval 10 % to 30 %)"),
        (tax(-0.2, 0.4), "undecided whether it removes any of the tax, between 20 % added and 40 %"),
        (Undefined("why"), "on the targets 8.0 points gained (6.0 to 10.0)"),
    ],
)
def test_an_arm_is_said_beside_the_plain_one(removed, expected):
    targets, home = Estimate(8, 6, 10, "tasks", "points", 100), Estimate(-1, -2, 0, "tasks", "points", 50)
    arm = ArmReport("replay", targets, 0.01, home, Undefined("a"), removed, Undefined("b"), Undefined("c"), ("a",))
    assert arm_sentence(arm).startswith(f"replay compared with plain: {expected}")
    apart = replace(arm, touched=("x", "y"), touched_removed=tax(0.9, 1.0))
    assert "untouched target" in arm_sentence(apart) or not removed
    assert "on the touched (x, y) the share removed is 95 % (90 % to 100 %)" in arm_sentence(apart)
    if removed and removed.low > 0:
        assert "removes" in arm_sentence(replace(arm, targets=replace(targets, seeds=3)))
        chance = replace(arm, targets_p=0.2, arms=3)
        assert "is not significant when corrected for 3 arms (Holm)" in arm_sentence(chance)


def test_the_verdict_is_on_the_targets_that_training_did_not_touch():
    rng = np.random.default_rng(2)
    init = {d: (rng.random(300) < 0.5).astype(float) for d in ("home", "a", "b")}
    after = init | {"a": init["a"] * (rng.random(300) < 0.4)}
    r = tax_report("home", init, after, touched={"b", "home", "elsewhere"})
    assert r.touched == {"b"}
    assert headline(r) == r.tax_untouched
    said = " ".join(sentences(r))
    assert "on 1 untouched domain." in said
    assert "On the touched targets, whose text or experts entered training (b): " in said
    assert "b (touched) between" in said
    every = tax_report("home", init, after, touched={"a", "b"})
    assert headline(every) == every.tax
    assert "Every target entered training (a, b)" in " ".join(sentences(every))


def test_little_evidence_is_undecided_and_a_loss_at_home_no_purchase():
    said = sentences(report(0.35, 0.45, tasks=20))
    assert said[0].startswith("Undecided whether this checkpoint lost success on 1 other domain: between ")
    assert said[1].startswith("On sokoban itself: undecided, between ")
    assert len(said) == 4  # no price of nothing
    assert "Training gained nothing: for each point lost" in sentences(report(0.02, 0.1))[3]


def test_random_play_and_what_is_left_above_it_are_said():
    rng = np.random.default_rng(3)
    init = {d: (rng.random(300) < 0.5).astype(float) for d in ("home", "a", "b")}
    low = (rng.random(300) < 0.1).astype(float)
    r = tax_report("home", init, init | {"a": np.roll(low, 5)}, chance={"a": low, "b": low})
    assert r.tax_above_chance.value > r.tax.value
    said = " ".join(sentences(r))
    assert "Of the success above random play: " in said
    assert "No longer distinguishable from random play: a." in said
    assert str(r).splitlines()[1].split()[:2] == ["domain", "random"]


def test_left_out_tasks_are_said_with_the_worst_they_can_do():
    ones = np.repeat([1.0, 0.0], 50)
    broken = ones.copy()
    broken[3] = np.nan
    r = tax_report("a", {"a": ones, "b": broken}, {"a": ones, "b": ones})
    assert r.bounds.best_case.value == pytest.approx(-1 / 49)
    assert r.bounds.worst_case.value == 0
    assert r.bounds.drop["b"] == pytest.approx((-1.0, 0.0))
    assert sentences(r)[-1] == (
        "Excluded because the environment failed: 1 task of b. With all of them at their best or at their worst, the "
        "result would be 2.0 % gained or 0.0 % lost."
    )


def test_numbers_have_a_true_minus_and_no_minus_zero():
    minus = "\N{MINUS SIGN}"
    assert [number(-0.04), number(-2.0), signed(3), signed(-0.01)] == ["0.0", f"{minus}2.0", "+3.0", "0.0"]


def test_one_truncated_reply_of_thousands_is_not_0_percent():
    assert Truncation(1 / 3000).sentences("me")[0].startswith("fewer than 0.1% of the replies of me were cut off")
    assert Truncation(cut_prompts=1 / 1500).sentences("me")[0].startswith("0.1% of the prompts of me lost text")

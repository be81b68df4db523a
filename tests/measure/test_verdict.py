"""Sentences claim what the interval allows, and "undecided" when it allows both."""

import numpy as np
import pytest

from gentax.measure.arms import ArmReport
from gentax.measure.statistics import Estimate, Undefined
from gentax.measure.tax import tax_report
from gentax.measure.verdict import Verdict, arm_sentence, number, sentences, signed, tax_sentence, verdict


def tax(low, high):
    return Estimate((low + high) / 2, low, high, "tasks", "fraction", 100)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.3, Verdict.COSTS),
        (0.01, 0.03, Verdict.COSTS),
        (-0.3, -0.1, Verdict.TRANSFERS),
        (-0.04, 0.03, Verdict.FREE),
        (-0.04, 0.2, Verdict.UNDECIDED),
        (-0.2, 0.04, Verdict.UNDECIDED),
    ],
)
def test_verdicts(low, high, expected):
    assert verdict(tax(low, high)) is expected


def test_an_undefined_tax_decides_nothing():
    assert verdict(Undefined("why")) is Verdict.UNDECIDED


def report(home, target, tasks=256, seeds=1):
    rng = np.random.default_rng(0)
    init = {"sokoban": rng.random(tasks) < 0.3, "sciworld": rng.random(tasks) < 0.5}
    init = {d: x.astype(float) for d, x in init.items()}
    after = {"sokoban": rng.random((seeds, tasks)) < home, "sciworld": rng.random((seeds, tasks)) < target}
    return tax_report("sokoban", init, {d: x.astype(float) for d, x in after.items()})


def test_a_loss_is_said_with_its_interval_and_what_that_covers():
    said = sentences(report(0.8, 0.2))
    assert said[0].startswith("Training on sokoban costs: of the success on 1 other domain it lost ")
    assert "raised its own test success by" in said[1]
    assert "over 256 tasks; one training seed: the interval covers tasks only" in said[1]
    assert said[2].startswith("On sciworld it lost ")
    assert said[3].startswith("Each point gained on sokoban costs ")


def test_seeds_are_said():
    assert "over 256 tasks and 3 training seeds" in tax_sentence(report(0.8, 0.2, seeds=3))


def test_a_gain_elsewhere_is_a_transfer_with_its_sign_turned():
    r = report(0.8, 0.9)
    said = sentences(r)
    assert "transfers: on 1 other domain success rose by" in said[0]
    assert said[2].startswith(f"On sciworld it gained {number(-r.drop['sciworld'].value)} points")
    assert said[3].startswith("Each point gained on sokoban brings ")


@pytest.mark.parametrize(
    ("removed", "expected"),
    [
        (tax(0.4, 0.8), "Beside plain: it removes 60 % of the tax (95 % interval 40 % to 80 %), at home −1.0 points"),
        (tax(-0.3, -0.1), "Beside plain: it adds 20 % to the tax (95 % interval 10 % to 30 %)"),
        (tax(-0.2, 0.4), "Beside plain: undecided whether it removes any of the tax (95 % interval −20 % to 40 %)"),
        (Undefined("why"), "Beside plain: +8.0 points on the targets (95 % interval +6.0 to +10.0)"),
    ],
)
def test_an_arm_is_said_beside_the_plain_one(removed, expected):
    targets, home = Estimate(8, 6, 10, "tasks", "points", 100), Estimate(-1, -2, 0, "tasks", "points", 50)
    said = arm_sentence(
        ArmReport("replay", targets, 0.01, home, Undefined("a"), removed, Undefined("b"), Undefined("c"))
    )
    assert said.startswith(expected)
    assert said.endswith("over 100 tasks; one training seed: the interval covers tasks only.")


def test_little_evidence_is_undecided():
    said = sentences(report(0.35, 0.45, tasks=20))
    assert said[0].startswith("Undecided whether training on sokoban costs")
    assert said[1].startswith("Undecided whether training on sokoban changed its own test success")
    assert said[2].startswith("On sciworld: undecided, between ")
    assert said[3].endswith("undefined: the interval of ΔID holds 0.")


def test_a_loss_at_home_is_no_purchase():
    assert "nothing was bought" in sentences(report(0.02, 0.1))[-1]


def test_left_out_tasks_are_said():
    ones = np.repeat([1.0, 0.0], 50)
    broken = ones.copy()
    broken[3] = np.nan
    said = sentences(tax_report("a", {"a": ones, "b": broken}, {"a": ones, "b": ones}))
    assert said[-1] == "Left out because the environment broke: 1 on b (tasks)."


def test_numbers_have_a_true_minus_and_no_minus_zero():
    minus = "\N{MINUS SIGN}"
    assert [number(-0.04), number(-2.0), signed(3), signed(-0.01)] == ["0.0", f"{minus}2.0", "+3.0", "0.0"]

"""What is said before and at the first look: what can be seen, "free", seeds, and what of it is assumed."""

from dataclasses import replace

from gentax.metrics.statistics import InterimAnalyses, Pilot, minimum_detectable_drop, required_sample_size
from gentax.metrics.statistics.power import power_sentences

PILOT = Pilot(tasks=32, targets=5, before=0.4, variance=0.08, correlation=0.8, design_effect=1.1)


def test_before_a_pilot_it_says_what_is_assumed():
    said = power_sentences(128, 5, InterimAnalyses(5))
    assert "assumed until tasks are played: base success of 30 %" in said[0]
    assert "correlate by 0.7 or more" in said[0]
    drop = minimum_detectable_drop(128, 5, InterimAnalyses(5))
    assert f"a mean drop of {drop:.1f} points, a tax of {drop / 0.3:.0f} %" in said[0]
    assert 'Showing that training is "free" within ±5 % would take ' in said[1]
    assert " points with 3 seeds, " in said[2]
    assert "(assumed: seeds 3.0 points apart)" in said[2]
    assert (
        required_sample_size(5, 5, InterimAnalyses(5)).tasks < 150
    )  # a quarter of what a correlation of 0.3 asked for


def test_a_pilot_replaces_what_was_assumed():
    said = " ".join(power_sentences(128, 5, InterimAnalyses(5), PILOT, drop=6.0))
    assert (
        "from 32 tasks of each: base success of 40 %, correlation 0.80, variance of a task's difference 0.080" in said
    )
    assert "6 points take " in said
    measured = " ".join(power_sentences(128, 5, InterimAnalyses(5), replace(PILOT, seed_spread=1.5)))
    assert "(measured: seeds 1.5 points apart)" in measured
    assert 'They are enough to show that training is "free" within ±5 %.' in " ".join(
        power_sentences(4000, 5, InterimAnalyses(1), PILOT)
    )
    assert "too few to detect any loss" in power_sentences(2, 1, InterimAnalyses(5), PILOT)[0]
    assert "nothing to lose" in power_sentences(128, 5, InterimAnalyses(5), replace(PILOT, before=0.0))[0]

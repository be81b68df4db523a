"""The tax of two policies: look by look, with the same numbers as in one go, and from files without playing."""

import sys

import numpy as np
import pytest

import gentax
from gentax.core import Episode, Outcome, Task, UsageError
from gentax.evals.evaluate import Evaluation, evaluate
from gentax.evals.paired_eval import mixed_model, paired_evaluation, tax
from gentax.metrics.episode_scores import task_success
from gentax.metrics.statistics import InterimAnalyses, required_sample_size
from gentax.metrics.tax import tax_report
from gentax.metrics.verdict import sentences
from gentax.policies import ExpertPolicy, RandomPolicy
from gentax.rollouts import RolloutConfig

DOMAINS = {"sokoban": "6x6", "toy": None, "crafting": None}


class Slips(ExpertPolicy):
    """Errs by chance, as the episode's own numbers have it."""

    def reply(self, turns):
        replies = super().reply(turns)
        fails = [turn.rng.random() < 0.08 for turn in turns]
        return [type(r)("<action>no</action>") if bad else r for r, bad in zip(replies, fails, strict=True)]


def test_a_clear_verdict_stops_early(toy):
    found = paired_evaluation(ExpertPolicy(), RandomPolicy(), "toy", DOMAINS, tasks=60, analyses=InterimAnalyses(5))
    assert found.report.tax.low > 0
    assert found.report.analysis < 5
    assert found.played < found.planned == 180
    said = " ".join(sentences(found.report))
    assert f"Interim analysis {found.report.analysis} of at most 5" in said


def test_an_unclear_one_goes_on_and_ends_with_the_numbers_of_one_go(toy):
    seen = []
    by_looks = paired_evaluation(
        Slips(), Slips(), "toy", DOMAINS, tasks=30, analyses=InterimAnalyses(3), seed=3, on_analysis=seen.append,
        decided=lambda report: False,
    )  # fmt: skip
    assert [r.analysis for r in seen] == [1, 2, 3]
    assert [r.tasks["toy"] for r in seen] == [10, 20, 30]
    assert by_looks.played == by_looks.planned == 90
    once = {d: task_success(e) for d, e in evaluate(Slips(), DOMAINS, tasks=30, seed=3).episodes.items()}
    whole = tax_report("toy", once, once, analyses=InterimAnalyses(3), analysis=3)
    assert by_looks.report.init == whole.init
    assert by_looks.report.tax.value == 0


def test_one_error_at_an_early_look_does_not_end_a_study(toy, monkeypatch):
    class Once(ExpertPolicy):
        def reply(self, turns):
            said = super().reply(turns)
            return [
                type(r)("<action>crash</action>") if t.env.task.index == 3 and t.env.domain.name == "toy" else r
                for t, r in zip(turns, said, strict=True)
            ]

    monkeypatch.setattr(toy, "fatal", True)
    found = paired_evaluation(
        Once(), ExpertPolicy(), "crafting", DOMAINS, tasks=60, analyses=InterimAnalyses(5), decided=lambda report: False
    )
    assert found.report.excluded_tasks["toy"] == 1


def test_the_targets_that_stand_are_fewer_when_more_is_looked_at():
    rng = np.random.default_rng(2)
    init = {d: (rng.random(200) < 0.5).astype(float) for d in "hab"}
    after = {d: x.copy() for d, x in init.items()}
    after["a"][np.flatnonzero(init["a"])[:9]] = 0
    once = tax_report("h", init, after)
    assert once.significant == {"a"}
    early, late = (tax_report("h", init, after, analyses=InterimAnalyses(5), analysis=k) for k in (1, 5))
    assert early.significant == frozenset()
    assert early.tax.low < late.tax.low < late.tax.high < early.tax.high
    assert early.tax.level == late.tax.level == 0.95  # of all looks together
    many = {d: (rng.random(200) < 0.5).astype(float) for d in map(str, range(30))}
    assert once.drop_p["a"] < tax_report("h", init | many, after | many).drop_p["a"]


def test_the_public_function_takes_names_evaluations_and_files(toy, tmp_path):
    report = gentax.tax("expert", "random", "toy", ["crafting"], tasks=8, interim_analyses=1)
    assert report.source == "toy"
    assert report.analyses == 1
    pair = [evaluate(name, ["toy", "crafting"], tasks=8) for name in ("expert", "random")]
    assert tax(*pair, "toy").tax == report.tax
    for asked, says in (
        ((*pair, "toy", ["craftin"]), "did you mean 'crafting'"),
        ((pair[0], "random", "toy"), "not with a policy"),
        ((pair[0], evaluate("random", ["toy", "crafting"], tasks=9), "toy"), "same tasks of toy"),
        (("mine.json", "random", "toy"), "compared with another one"),
        ((str(tmp_path / "mine.json"), str(tmp_path / "yours.json"), "toy"), r"mine\.json"),
    ):
        with pytest.raises(UsageError, match=says):
            tax(*asked)
    with pytest.raises(UsageError, match="at least 2 tasks"):
        tax("expert", "random", "toy", ["crafting"], tasks=1)


def test_a_pilot_settles_how_many_tasks_are_played(toy):
    seen = []
    found = paired_evaluation(
        Slips(), Slips(), "toy", DOMAINS, tasks=60, analyses=InterimAnalyses(2), pilot=8, drop=12.0,
        decided=lambda report: False, on_pilot=lambda pilot, tasks: seen.append((pilot, tasks)),
    )  # fmt: skip
    ((pilot, tasks),) = seen
    assert pilot.tasks == 8
    assert tasks == found.report.tasks["toy"]
    assert tasks == max(8, required_sample_size(12.0, 2, InterimAnalyses(2), pilot.variance))
    assert found.played == found.planned
    once = evaluate(Slips(), {"toy": None}, tasks=tasks).episodes["toy"]
    assert [e.success for e in found.base.episodes["toy"]] == [e.success for e in once]
    with pytest.raises(UsageError, match="give the drop"):
        paired_evaluation(Slips(), Slips(), "toy", DOMAINS, tasks=60, analyses=InterimAnalyses(2), pilot=8)


def test_random_play_goes_along_and_the_verdict_is_on_untouched_targets(toy):
    found = paired_evaluation(
        ExpertPolicy(), RandomPolicy(), "toy", DOMAINS, tasks=24, analyses=InterimAnalyses(1), touched={"crafting"}
    )
    report = found.report
    assert set(report.above_chance) == set(DOMAINS)
    assert report.above_chance["sokoban"].after.contains(0)
    assert report.tax_above_chance.value == pytest.approx(1)  # random play is what it collapsed to
    assert report.touched == {"crafting"}
    assert report.tax_untouched.n == report.tasks["sokoban"]


def test_tasks_of_the_same_content_are_one_cluster(toy, monkeypatch):
    monkeypatch.setattr(toy, "content", lambda self: f"world {self.task.index // 3}", raising=False)
    pair = [evaluate(name, ["toy", "crafting"], tasks=12) for name in ("expert", "random")]
    assert len(set(pair[0].clusters()["toy"])) == 4
    assert tax(*pair, "crafting").clusters["toy"] == 4
    assert tax(*pair, "crafting").clusters["crafting"] <= 12
    wide = pair[1].success()["toy"]
    assert wide.high - wide.low > 0


def mixed_pair(tasks=48, shift=-1.0):
    rng = np.random.default_rng(1)
    both, outcomes = ({}, {}), (Outcome.FAILURE, Outcome.SUCCESS)
    for d in ("home", "a", "b"):
        hard = rng.normal(0, 1.5, tasks)
        for episodes, moved in zip(both, (0.0, shift), strict=True):
            won = rng.random(tasks) < 1 / (1 + np.exp(-(hard + moved)))
            episodes[d] = [
                Episode(Task(d, "l", "test", k), 0, "", (), outcomes[int(x)], content=f"{k // 2}")
                for k, x in enumerate(won)
            ]
    return [Evaluation(name, RolloutConfig(), of) for name, of in zip(("base", "tuned"), both, strict=True)]


def test_the_mixed_model_agrees_with_the_main_interval():
    pytest.importorskip("statsmodels")
    before, after = mixed_pair()
    found = mixed_model(before, after, "home")
    of = [{d: task_success(e) for d, e in one.episodes.items()} for one in (before, after)]
    plain = tax_report("home", *of, clusters=before.clusters())
    assert found.tax.value == pytest.approx(plain.tax.value, abs=0.04)
    assert found.tax.high - found.tax.low == pytest.approx(plain.tax.high - plain.tax.low, rel=0.3)
    assert set(found.drop) == {"a", "b"}
    assert found.drop["a"].value == pytest.approx(plain.drop["a"].value, abs=3)
    assert found.sentences()[0].startswith("Sensitivity: under a logistic mixed model the tax is ")
    assert mixed_model(before, after, "home") == found


def test_without_the_library_one_line_says_how_to_have_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    with pytest.raises(UsageError, match=r'pip install "gentax\[sensitivity\]"'):
        mixed_model(*mixed_pair(4), "home")

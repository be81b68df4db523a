"""What `print` shows of a result: a short table, with intervals, and why an estimate is undefined."""

from __future__ import annotations

import types

import numpy as np
import pytest

import gentax
from gentax.evals.evaluate import Evaluation
from gentax.evals.suite import load_suite
from gentax.evals.suite_result import DomainResult, PlayedEpisode, SuiteResult
from gentax.metrics.arms import ArmReport
from gentax.metrics.axes import Probe
from gentax.metrics.diversity import Diversity
from gentax.metrics.statistics import TASKS, Estimate, Undefined
from gentax.metrics.tax import TaxReport, tax_report


def rates(n=100, **percents):
    return {d: np.arange(n) * 100 < p * n for d, p in percents.items()}


def test_an_estimate_shows_its_interval():
    assert str(Estimate(12.0, 8.06, 15.94, TASKS, "points", 64)) == "12.0 (8.1 to 15.9)"
    assert str(Estimate(-0.001, -0.01, 0.07, TASKS, "fraction", 64)) == "0.00 (−0.01 to 0.07)"
    nothing = Undefined("nothing to lose")
    assert (bool(nothing), str(nothing), nothing.to_json()) == (False, "undefined: nothing to lose", None)


def test_a_tax():
    init = {d: x.astype(float) for d, x in rates(home=30, a=50, b=40).items()}
    after = {d: x.astype(float) for d, x in rates(home=70, a=40, b=20).items()}
    lines = str(tax_report("home", init, after)).splitlines()
    assert lines[0] == "Success %, with 95 % intervals"
    assert lines[1].split() == ["domain", "base", "tuned", "drop", "in", "points"]
    assert lines[2].endswith("source")
    assert lines[-3].startswith("tax of home: 0.33 (")
    assert lines[-2].startswith("gain on home, points: 40.0 (")
    assert lines[-1].startswith("points lost elsewhere per point gained: 0.38 (")
    assert max(map(len, lines)) < 100
    report = tax_report("away", *[{d: np.zeros(9) for d in "ab"}] * 2)
    assert "tax of away: undefined: the base policy's success on the targets is not told apart from 0" in str(report)
    assert "gain on away, points: undefined: away was not evaluated" in str(report)


def test_an_evaluation_and_a_probe_and_no_episodes_in_a_notebook(toy):
    result = gentax.evaluate("expert", "toy", tasks=8)  # one name will do
    assert str(result).splitlines()[0] == "expert on test tasks"
    assert str(result).splitlines()[2].split()[:3] == ["toy", "three", "100.0"]
    (probe,) = gentax.probe(["toy"], "expert", trajectories=8)
    assert str(probe).splitlines()[0] == "toy, played by expert"
    assert "planning complexity, steps (failures: 50)" in str(probe)
    shown: list[str] = []
    result._repr_pretty_(types.SimpleNamespace(text=shown.append), False)
    assert shown == [str(result)]
    assert "episodes" not in repr(result)
    for kind in (Evaluation, TaxReport, SuiteResult, Probe, Diversity, ArmReport):
        assert "_repr_pretty_" in vars(kind)  # IPython passes over one that is inherited


def test_diversity():
    far = Estimate(0.5, 0.4, 0.6, TASKS, "fraction", 9)
    lines = str(Diversity(("a", "b"), {"structural": {"a": {"b": far}, "b": {"a": far}}})).splitlines()
    assert lines[0].startswith("structural: ")
    assert lines[2].split() == ["a", "0.50", "±0.10"]


def test_a_suite_and_its_score_card():
    def played(name, outcome):
        return tuple(
            PlayedEpisode(task, 0, outcome, 2, 1, 0.0, error="x" * (outcome == "error")) for task in tasks[name]
        )

    suite = load_suite("v2")
    tasks = {name: dict(list(suite.domains[name].starts.items())[:2]) for name in ("sokoban", "crafting")}
    domains = {
        "sokoban": DomainResult("one", 9, tasks["sokoban"], played("sokoban", "success")),
        "crafting": DomainResult("one", 9, tasks["crafting"], played("crafting", "error")),
    }
    result = SuiteResult("v2", "d" * 32, "me", None, {}, ("gone",), domains)
    lines = str(result).splitlines()
    assert lines[0] == "me on suite v2 (dddddddd)"
    assert lines[2].split()[:3] == ["sokoban", "one", "100.0"]
    random = f"{100 * suite.chance('crafting').mean():.1f}"
    assert lines[3].split() == ["crafting", "one", "undefined", random, "undefined", "0.0", "0%", "2"]
    assert lines[4] == "incomplete, so there is no mean: without gone"


@pytest.mark.parametrize("shown", [True, False])
def test_training_and_a_tax_show_progress_where_they_are_asked_to(toy, able, tmp_path, capsys, shown):
    config = gentax.TrainConfig(
        model=str(able), source="toy:one", max_steps=1, tasks_per_step=2, num_generations=2, eval_steps=0
    )
    gentax.train(config, tmp_path / "run", progress=shown)
    assert ("step 1/1" in capsys.readouterr().out) == shown
    gentax.evaluate("expert", ["toy"], tasks=4, progress=shown)
    assert ("expert: 4/4 episodes" in capsys.readouterr().out) == shown

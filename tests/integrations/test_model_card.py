"""`gentax card`: the Hub's own reader finds the results in the card, and what was there before stays."""

from __future__ import annotations

import json

import numpy as np
import pytest
from huggingface_hub import ModelCard

from command import run
from gentax.evals.evaluate import evaluate
from gentax.metrics.tax import tax_report
from gentax.metrics.verdict import sentences


@pytest.fixture
def report():
    alternating = np.array([1.0, 0.0] * 16)
    init = {"sokoban": np.array([1.0, *[0.0] * 31]), "a|<b>": np.ones(32), "crafting": alternating}
    after = {"sokoban": np.ones(32), "a|<b>": alternating, "crafting": alternating}
    return tax_report("sokoban", init, after)


def test_the_hub_reads_the_results_of_a_card_that_was_there_before(report, tmp_path):
    (tmp_path / "tax.json").write_text(json.dumps(report.to_json() | {"sentences": sentences(report)}))
    readme = tmp_path / "README.md"
    readme.write_text("---\nlicense: mit\n---\n# Mine\n\nMy words.\n")
    for _ in range(2):  # the second time replaces the section
        shown = run("card", tmp_path / "tax.json", "--out", readme)
        assert shown.code == 0, shown.err
    read = ModelCard.load(readme)
    assert read.data.license == "mit"
    values = {(one.dataset_type, one.metric_type): one for one in read.data.eval_results}
    tax = values["gentax/sokoban", "generalization_tax"]
    assert tax.metric_value == pytest.approx(report.tax.value)
    assert tax.metric_args == {"low": report.tax.to_json()["low"], "high": report.tax.to_json()["high"], "level": 0.95}
    assert values["gentax/crafting", "success_rate"].metric_value == pytest.approx(50)
    text = readme.read_text()
    assert text.count("My words.") == text.count("## Generalization tax") == 1
    assert f"| crafting | target | {report.init['crafting']} | {report.after['crafting']} |" in text
    assert "| a\\|&lt;b&gt; | target |" in text
    assert "tasks, not training seeds" in text


def test_an_evaluation_has_its_success_and_level(tmp_path):
    result = evaluate("random", "sokoban", tasks=4)
    (tmp_path / "mine.json").write_text(json.dumps(result.to_json()))
    (found,) = ModelCard(run("card", tmp_path / "mine.json", "--name", "mine").out).data.eval_results
    assert found.metric_value == result.success()["sokoban"].value
    assert found.dataset_config == result.episodes["sokoban"][0].task.level


def test_other_files_are_refused(tmp_path, report):
    (tmp_path / "x.json").write_text('{"probes": []}')
    assert "holds no result of" in run("card", tmp_path / "x.json").err
    (tmp_path / "y.json").write_text(json.dumps(report.to_json() | {"tax": {"value": "high"}}))
    assert run("card", tmp_path / "y.json").code == 2
    (tmp_path / "tax.json").write_text(json.dumps(report.to_json()))
    (tmp_path / "README.md").write_text("---\n- a list\n---\n")
    assert "metadata cannot be read" in run("card", tmp_path / "tax.json", "--out", tmp_path / "README.md").err

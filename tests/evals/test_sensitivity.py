"""The mixed model agrees with the interval that assumes no model where both are at home, and is missed in one line."""

import sys

import numpy as np
import pytest

from gentax.core import Episode, Outcome, Task, UsageError
from gentax.evals import sensitivity
from gentax.evals.evaluate import Evaluation
from gentax.metrics.episode_scores import task_success
from gentax.metrics.tax import tax_report
from gentax.rollouts import RolloutConfig


def pair(tasks=48, shift=-1.0):
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
    before, after = pair()
    found = sensitivity.mixed_model(before, after, "home")
    of = [{d: task_success(e) for d, e in one.episodes.items()} for one in (before, after)]
    plain = tax_report("home", *of, clusters=before.clusters())
    assert found.tax.value == pytest.approx(plain.tax.value, abs=0.04)
    assert found.tax.high - found.tax.low == pytest.approx(plain.tax.high - plain.tax.low, rel=0.3)
    assert set(found.drop) == {"a", "b"}
    assert found.drop["a"].value == pytest.approx(plain.drop["a"].value, abs=3)
    assert found.sentences()[0].startswith("Sensitivity: under a logistic mixed model the tax is ")
    assert sensitivity.mixed_model(before, after, "home") == found


def test_without_the_library_one_line_says_how_to_have_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    with pytest.raises(UsageError, match=r'pip install "gentax\[sensitivity\]"'):
        sensitivity.mixed_model(*pair(4), "home")

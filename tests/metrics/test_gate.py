"""The release gate: each outcome from made scores, what its file may say, and the exit code of the command."""

from __future__ import annotations

import json

import numpy as np
import pytest

from command import run
from gentax.core import UsageError
from gentax.metrics.gate import Gate, GateOutcome, read_gate
from gentax.metrics.statistics import InterimAnalyses
from gentax.metrics.tax import tax_report


def gate(tmp_path, text: str) -> Gate:
    file = tmp_path / "gate.yaml"
    file.write_text(text)
    return read_gate(file)


def report(after: float, home: float = 0.7, tasks: int = 200, errors: int = 0, **settings):
    """Return the report of a base that solves half of two targets; after training it solves `after` of one."""

    def of(rate: float) -> np.ndarray:
        return (np.arange(tasks) < round(rate * tasks)).astype(float)

    init = {"home": of(0.3), "maze": of(0.5), "shop": of(0.5)}
    tuned = {"home": of(home), "maze": of(after), "shop": of(0.5)}
    tuned["shop"][:errors] = np.nan
    return tax_report("home", init, tuned, **settings)


FAIL, PASS, WARN, OPEN = GateOutcome.FAIL, GateOutcome.PASS, GateOutcome.WARN, GateOutcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("targets: {maze: {fail: 4}}", FAIL),  # a drop of 10 points, interval 5.6 to 14.4
        ("targets: {maze: {fail: 10}}", OPEN),
        ("targets: {maze: {fail: 20 points, warn: 10}}", WARN),
        ("targets: {maze: {fail: 20, warn: 16}}", PASS),
        ("other_targets: {fail: 4}", FAIL),
        ("{targets: {maze: {fail: 20}}, other_targets: {fail: 4}}", PASS),  # of shop alone
        ("tax: {fail: 10 percent}", OPEN),  # a tax of 10 %
        ("tax: {fail: 30%, warn: 20%}", PASS),
        ("untouched: {fail: 4 %}", FAIL),  # nothing is touched: over all targets
        ("gain: {fail: 50}", FAIL),  # of 40 points
        ("gain: {fail: 10, warn: 40}", WARN),
        ("errors: {fail: 1 %}", PASS),
        ("{tax: {fail: 30 %}, gain: {fail: 50}, targets: {maze: {fail: 10}}}", FAIL),  # outweighs inconclusive
        ("{targets: {maze: {fail: 10}}, gain: {fail: 10, warn: 40}}", OPEN),  # outweighs a warning
        ("{judge: estimate, targets: {maze: {fail: 9}}}", FAIL),
        ("{judge: estimate, targets: {maze: {fail: 10}}}", PASS),
        ("{judge: estimate, targets: {maze: {fail: 11, warn: 9}}}", WARN),
    ],
)
def test_outcomes(tmp_path, text, outcome):
    judged = gate(tmp_path, text).judged(report(0.4))
    assert judged.outcome is outcome
    assert judged.to_json()["outcome"] == outcome.value
    assert judged.exit_code == {PASS: 0, WARN: 0, FAIL: 3, OPEN: 4}[outcome]
    assert outcome.value in str(list(judged.table().lines()))


def test_touched_targets_and_errors(tmp_path):
    touched = report(0.4, touched={"maze"})
    assert gate(tmp_path, "untouched: {fail: 5 %}").judged(touched).outcome is PASS  # shop lost nothing
    assert gate(tmp_path, "tax: {fail: 4 %}").judged(touched).outcome is FAIL
    all_touched = report(0.4, touched={"maze", "shop"})
    judged = gate(tmp_path, "untouched: {fail: 5 %}").judged(all_touched)
    assert judged.outcome is OPEN
    assert "every target is touched" in judged.to_json()["checks"][0]["undefined"]
    broken = report(0.4, errors=3)
    assert gate(tmp_path, "errors: {fail: 1 %}").judged(broken).outcome is FAIL  # 1.5 % of the tasks of shop
    assert gate(tmp_path, "errors: {fail: 2 %, warn: 1 %}").judged(broken).outcome is WARN


def test_playing_stops_where_more_tasks_change_nothing(tmp_path):
    early = report(0.4, analyses=InterimAnalyses(5), analysis=3)
    assert gate(tmp_path, "targets: {maze: {fail: 2}}").settled(early)
    assert gate(tmp_path, "targets: {maze: {fail: 30}}").settled(early)
    assert not gate(tmp_path, "targets: {maze: {fail: 10}}").settled(early)
    assert not gate(tmp_path, "targets: {maze: {fail: 30, warn: 10}}").settled(early)  # it may still become PASS
    assert gate(tmp_path, "{targets: {maze: {fail: 2}}, gain: {fail: 40}}").settled(early)  # it will not become PASS
    assert not gate(tmp_path, "{judge: estimate, targets: {maze: {fail: 2}}}").settled(early)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a gate needs a limit"),
        ("taxx: {fail: 5 %}", "did you mean 'tax'"),
        ("tax: {warn: 5 %}", "lacks the key 'fail'"),
        ("tax: 5 %", "tax must be a mapping, not '5 %'"),
        ("tax: {fail: 0.1}", "write `0.1 %`"),
        ("tax: {fail: .nan}", "must be a number such as `5 %`"),
        ("tax: {fail: 5 points}", "is in percent"),
        ("gain: {fail: 5 %}", "is in points"),
        ("gain: {fail: true}", "must be a number"),
        ("gain: {fail: 5, warn: 2}", "gain: warn, 2, must be above fail, 5"),
        ("targets: {maze: {fail: 2, warn: 5}}", "targets.maze: warn, 5, must be below fail, 2"),
        ("{tax: {fail: 5 %}, judge: intervals}", "did you mean 'interval'"),
    ],
)
def test_files_that_are_no_gates_are_refused_in_a_line(tmp_path, text, says):
    with pytest.raises(UsageError) as refused:
        gate(tmp_path, text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("tuned", "text", "code"),
    [
        ("random", "tax: {fail: 5 %}", 3),
        ("expert", "{tax: {fail: 60 %}, gain: {fail: -60}}", 0),
        ("expert", "tax: {fail: 0.5 %}", 4),
        ("expert", "targets: {crafing: {fail: 5}}", 2),
    ],
)
def test_the_exit_code_of_the_command(tmp_path, tuned, text, code):
    (tmp_path / "gate.yaml").write_text(text)
    command = ["tax", "--base", "expert", "--tuned", tuned, "--source", "sokoban", "-t", "crafting", "--tasks", "24"]
    done = run(*command, "--no-chance", "--gate", "gate.yaml", "--json", "out.json", cwd=tmp_path)
    assert done.code == code, done.err
    if code == 2:
        assert "did you mean 'crafting'" in done.err
        assert "episodes" not in done.out  # nothing was played
        return
    written = json.loads((tmp_path / "out.json").read_text())["gate"]
    assert written["exit_code"] == code
    assert done.out.rstrip().endswith(f"gate: {written['outcome']}")

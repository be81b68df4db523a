"""Logs that lm-evaluation-harness and Inspect wrote become targets of a tax, paired by sample."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from command import run
from gentax.core import UsageError
from gentax.integrations.sample_logs import read_recorded
from gentax.metrics.tax import tax_report

DATA = Path(__file__).parent / "data"
CAPITALS = [DATA / f"lm_eval_capitals_{when}.jsonl" for when in ("before", "after")]
SUMS = [DATA / f"lm_eval_sums_{when}.jsonl" for when in ("before", "after")]
INSPECT = [DATA / f"inspect_{when}.json" for when in ("before", "after")]


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_harness_samples_have_the_metric_and_filter_that_is_named():
    recorded = read_recorded(*CAPITALS, "acc")
    assert recorded.before_K.tolist() == [line["acc"] for line in lines_of(CAPITALS[0])]
    assert recorded.after_K.tolist() == [line["acc"] for line in lines_of(CAPITALS[1])]
    assert len(set(recorded.contents)) == 8
    assert len(read_recorded(*SUMS, "exact_match,strict").before_K) == 4  # of 8 lines, half of them of another filter
    with pytest.raises(UsageError, match="several metrics: write NAME:METRIC=…, with one of acc, acc_norm"):
        read_recorded(*CAPITALS)
    with pytest.raises(UsageError, match="did you mean 'exact_match,strict'"):
        read_recorded(*SUMS, "exact_match,strikt")


def test_inspect_grades_are_scores_and_an_error_is_no_failure(tmp_path):
    recorded = read_recorded(*INSPECT, "match")
    assert (recorded.before_K.tolist(), recorded.after_K.tolist()) == ([1, 1, 1, 0], [1, 0, 0, 0])
    log = json.loads(INSPECT[1].read_text())
    log["samples"][1] |= {"error": {"message": "out of memory"}, "scores": {}}
    log["samples"].append(log["samples"][0] | {"epoch": 2, "scores": {"match": {"value": "I"}}})
    (tmp_path / "log.json").write_text(json.dumps(log))
    after_K = read_recorded(INSPECT[0], tmp_path / "log.json", "match").after_K
    assert after_K[0] == 0.5  # the mean of two epochs
    assert np.isnan(after_K[1])


def test_a_packed_log_of_inspect_is_read_by_its_package(tmp_path):
    log = pytest.importorskip("inspect_ai.log")
    log.write_eval_log(log.read_eval_log(str(INSPECT[0])), str(tmp_path / "before.eval"))
    packed = read_recorded(tmp_path / "before.eval", INSPECT[1], "match")
    assert packed.before_K.tolist() == [1, 1, 1, 0]
    (tmp_path / "bad.eval").write_bytes(b"PK no zip")
    with pytest.raises(UsageError, match="cannot be read as a log of Inspect"):
        read_recorded(tmp_path / "bad.eval", INSPECT[1], "match")


def test_verifiers_rollouts_of_a_task_are_averaged(tmp_path):
    def trace(key, score, errors=()):
        task = {"type": "T", "key": key, "data": {"prompt": key}}
        return {"task": task, "rewards": {"solved": {"score": score}}, "errors": list(errors)}

    for name, first in (("before", 1.0), ("after", 0.0)):
        episodes = [
            {"traces": [trace("a", first)]},
            {"traces": [trace("a", 1.0)]},
            trace("b", 1.0),
        ]  # the last by itself
        episodes.append({"traces": [trace("c", 0.0, [{"type": "Timeout", "message": ""}])]})
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in episodes))
    recorded = read_recorded(tmp_path / "before.jsonl", tmp_path / "after.jsonl")
    assert (recorded.before_K[:2].tolist(), recorded.after_K[:2].tolist()) == ([1, 1], [0.5, 1])
    assert np.isnan([recorded.before_K[2], recorded.after_K[2]]).all()  # an error is no failure


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "samples must pair: 1 are in one file alone, such as '7'"),
        (lambda lines: [lines[0] | {"doc_hash": "f"}, *lines[1:]], "samples must pair: '0' asks something else"),
        (
            lambda lines: [lines[0], lines[1] | {"acc": 3}, *lines[2:]],
            "line 2: acc must be a score between 0 and",
        ),
        (lambda lines: [lines[0] | {"metrics": ["acc", "f1"]}], "line 1: 'metrics' must list the metrics"),
        (lambda lines: [{"id": 1}], "line 1, is no sample"),
    ],
)
def test_what_does_not_fit_is_named_with_its_line(tmp_path, change, message):
    (tmp_path / "after.jsonl").write_text("".join(json.dumps(line) + "\n" for line in change(lines_of(CAPITALS[1]))))
    with pytest.raises(UsageError) as refused:
        read_recorded(CAPITALS[0], tmp_path / "after.jsonl", "acc")
    assert message in str(refused.value)


def test_results_of_others_alone_have_the_same_intervals_and_sentences(tmp_path):
    options = [
        "--results",
        f"capitals:acc={CAPITALS[0]},{CAPITALS[1]}",
        "--results",
        f"sums:match={INSPECT[0]},{INSPECT[1]}",
    ]
    shown = run("tax", "--source", "sums", *options, "--table", tmp_path / "t.csv")
    assert shown.code == 0, shown.err
    capitals, sums = read_recorded(*CAPITALS, "acc"), read_recorded(*INSPECT, "match")
    report = tax_report(
        "sums",
        {"capitals": capitals.before_K, "sums": sums.before_K},
        {"capitals": capitals.after_K, "sums": sums.after_K},
        clusters={"capitals": capitals.contents, "sums": sums.contents},
    )
    assert str(report.drop["capitals"]) in shown.out
    assert "Undecided whether this checkpoint lost success on 1 other domain" in shown.out
    with (tmp_path / "t.csv").open() as file:
        assert {(row["measure"], row["domain"]) for row in csv.DictReader(file)} >= {("drop", "capitals"), ("tax", "")}
    assert "give --tuned" in run("tax", "--source", "sums").err
    assert "write NAME=BEFORE,AFTER" in run("tax", "--source", "sums", "--results", "a=b").err


def test_results_of_others_stand_beside_what_is_played():
    option = ["--results", f"capitals:acc={CAPITALS[0]},{CAPITALS[1]}"]
    played = ["--base", "expert", "--tuned", "random", "--source", "sokoban", "-t", "crafting", "--tasks", 8]
    shown = run("tax", *played, *option)
    assert shown.code == 0, shown.err
    rows = [line.split()[0] for line in shown.out.splitlines() if line.strip()]
    assert {"sokoban", "crafting", "capitals"} <= set(rows)
    assert "on 2 other domains" in shown.out
    clash = ["--results", f"crafting:acc={CAPITALS[0]},{CAPITALS[1]}"]
    assert "give these another name" in run("tax", *played, *clash).err

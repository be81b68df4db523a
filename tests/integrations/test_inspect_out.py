"""Episodes as a log of Inspect, read back by its own package and by ours."""

from __future__ import annotations

import sys

import pytest

from command import run
from gentax.core import Episode, Outcome, Step, Task
from gentax.integrations.trajectories import read_any_episodes


def episode(index, sample, outcome):
    steps = (Step("A hall.", "<action>look</action>", "look", 0.0, True), Step("A door.", "open", "", 1.0, False))
    error = "it broke" if outcome is Outcome.ERROR else ""
    return Episode(Task("d", "easy", "test", index), sample, "Find it.", steps, outcome, "Done.", error, "Rules.")


def test_inspect_reads_what_was_written(tmp_path):
    log = pytest.importorskip("inspect_ai.log")
    from gentax.integrations.inspect_log import write_inspect_log

    episodes = [episode(0, 0, Outcome.SUCCESS), episode(0, 1, Outcome.FAILURE), episode(1, 0, Outcome.ERROR)]
    for name in ("a.eval", "a.json"):
        write_inspect_log(tmp_path / name, episodes, "mine")
        read = log.read_eval_log(str(tmp_path / name))
        read.samples.sort(key=lambda sample: (sample.id, sample.epoch))
        assert [f"{s.id} {s.epoch}" for s in read.samples] == ["d/easy/test/0 1", "d/easy/test/0 2", "d/easy/test/1 1"]
        assert [s.scores["success"].value for s in read.samples[:2]] == ["C", "I"]
        assert (read.samples[2].scores, read.samples[2].error.message) == ({}, "it broke")
        turns = ["user", "assistant"] * 2
        assert [message.role for message in read.samples[0].messages] == ["system", *turns, "user"]
        assert [e.data["reward"] for e in read.samples[0].events] == [0.0, 1.0]
        assert read.results.scores[0].metrics["accuracy"].value == 0.5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.eval", "a.json"]
    write_inspect_log(tmp_path / "b.json", episodes[:2], "mine")
    assert [one.outcome for one in read_any_episodes(tmp_path / "b.json")] == [Outcome.SUCCESS, Outcome.FAILURE]


def test_what_is_missing_or_unknown_is_named(tmp_path, monkeypatch):
    def rollout(*options):
        return run("rollout", "sokoban", "--policy", "random", *options).err

    assert "did you mean 'inspect'" in rollout("--log", "inspct", "--out", str(tmp_path / "a.eval"))
    assert "written as .json or .eval" in rollout("--log", "inspect", "--out", str(tmp_path / "a.jsonl.gz"))
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    assert 'pip install "gentax[inspect]"' in rollout("--log", "inspect", "--out", str(tmp_path / "a.eval"))

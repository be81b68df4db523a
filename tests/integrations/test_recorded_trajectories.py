"""Trajectories of others, for SFT and `gentax diagnose`; and ours as a log of Inspect, read back by its own package."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from command import run
from gentax.core import Episode, Outcome, Step, Task, UsageError
from gentax.integrations.trajectories import read_any_episodes, write_inspect_log
from gentax.training.trajectories import read_trajectories

DATA = Path(__file__).parent / "data"


def log_with(tmp_path, change):
    log = json.loads((DATA / "inspect_before.json").read_text())
    for sample in log["samples"]:
        change(sample)
    (tmp_path / "log.json").write_text(json.dumps(log, indent=1))
    return tmp_path / "log.json"


def only_match(sample):
    sample["scores"] = {"match": sample["scores"]["match"]}


def test_a_log_of_inspect_is_conversations(tmp_path):
    conversations = read_trajectories(log_with(tmp_path, only_match))
    assert [one.success for one in conversations] == [True, True, True, False]
    assert [(x.message, x.reply) for x in conversations[0].exchanges] == [("1 + 1 =", "2")]
    assert [one.success for one in read_trajectories(DATA / "inspect_before.json")] == [None] * 4  # two scorers


def test_messages_of_inspect_that_cannot_be_learned_are_named(tmp_path):
    def call_tool(sample):
        sample["messages"][-1]["tool_calls"] = [{"id": "1", "function": "f", "arguments": {}}]

    with pytest.raises(UsageError, match=r"log\.json, sample '1': message 2 calls a tool"):
        read_trajectories(log_with(tmp_path, call_tool))
    (tmp_path / "other.json").write_text('{\n"samples": 3}')
    with pytest.raises(UsageError, match="is no log of Inspect"):
        read_trajectories(tmp_path / "other.json")


def chats(path, last, success):
    """Write three trajectories of three turns."""
    turns = [("You are in a hall.", "Thought: look\nAction: look"), ("A hall.", "Action: look"), ("A hall.", last)]
    speakers = ("human", "gpt")
    conversation = [{"from": who, "value": text} for turn in turns for who, text in zip(speakers, turn, strict=True)]
    records = [{"item_id": f"room_{n}", "conversations": conversation, "success": success} for n in range(3)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_diagnose_reads_conversations_and_claims_no_validity(tmp_path):
    before = chats(tmp_path / "before.jsonl", "Action: look", False)
    after = chats(tmp_path / "after.jsonl", "Action: open door", True)
    (episode, *_) = read_any_episodes(before)
    assert [step.action for step in episode.steps] == ["look", "look", "look"]
    shown = run("diagnose", before, after, "--json", tmp_path / "out.json")
    assert shown.code == 0, shown.err
    measured = json.loads((tmp_path / "out.json").read_text())["domains"]["recorded"]
    assert measured["before"]["measures"]["invalid"] is None
    assert measured["before"]["measures"]["repeated"]["value"] > measured["after"]["measures"]["repeated"]["value"]
    assert measured["after"]["measures"]["success"]["value"] == 100


def test_diagnose_needs_outcomes(tmp_path):
    with pytest.raises(UsageError, match="trajectory 1, does not say whether it succeeded"):
        read_any_episodes(DATA / "inspect_before.json")


def episode(index, sample, outcome):
    steps = (Step("A hall.", "<action>look</action>", "look", 0.0, True), Step("A door.", "open", "", 1.0, False))
    error = "it broke" if outcome is Outcome.ERROR else ""
    return Episode(Task("d", "easy", "test", index), sample, "Find it.", steps, outcome, "Done.", error, "Rules.")


def test_inspect_reads_what_was_written(tmp_path):
    log = pytest.importorskip("inspect_ai.log")
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
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    assert 'pip install "gentax[inspect]"' in rollout("--log", "inspect", "--out", str(tmp_path / "a.eval"))

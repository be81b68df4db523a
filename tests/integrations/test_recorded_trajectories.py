"""Trajectories of others: Inspect's logs for SFT, and all kinds for `gentax diagnose`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import run
from gentax.core import UsageError
from gentax.integrations.trajectories import read_any_episodes
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

"""Policies on the command line: a server's URL and `module:policy`; a fault is one line and an exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from chat_server import ChatServer, listed
from command import run
from gentax.core.episode import read_episodes


def skilled(request):
    """Model `good` crafts by asking for what is possible at random; `bad` talks."""
    return listed(request) if request["model"] == "good" else "I would rather talk."


def test_an_endpoint_is_evaluated(tmp_path):
    with ChatServer(skilled, ["good"]) as server:
        code, printed, _ = run(
            "evaluate", server.url, "-d", "crafting", "--admissible", "--tasks", "4",
            "--json", str(tmp_path / "o.json"),
        )  # fmt: skip
    assert code == 0
    assert "good on test tasks" in printed
    written = json.loads((tmp_path / "o.json").read_text())
    assert written["policy"] == "good"
    assert written["domains"]["crafting"]["invalid"] == 0


def test_the_tax_of_one_model_of_a_server_against_another():
    with ChatServer(skilled, ["good", "bad"]) as server:
        code, printed, _ = run(
            "tax", "--base", f"{server.url}#good", "--tuned", f"{server.url}#bad",
            "--source", "crafting", "-t", "babyai", "--admissible", "--tasks", "4",
        )  # fmt: skip
    assert code == 0
    assert "tax: 24/24 episodes" in printed
    opening = {}
    for request in server.requests:
        if len(request["messages"]) == 1:
            opening.setdefault(request["model"], set()).add((request["messages"][0]["content"], request["seed"]))
    assert opening["good"] == opening["bad"]  # the same tasks with the same random numbers
    assert len(opening["good"]) == 8


def test_an_endpoint_is_watched_and_its_episodes_are_kept(tmp_path):
    out = tmp_path / "e.jsonl.gz"
    with ChatServer(lambda _: "<think>so be it</think><action>noop") as server:
        code, printed, _ = run("play", "crafting", "--policy", server.url)
        assert code == 0
        assert "(so be it)" in printed
        assert "> noop" in printed
        code, _, _ = run("rollout", "crafting", "--policy", server.url, "--tasks", "2", "--out", str(out))
    assert code == 0
    assert {step.text for episode in read_episodes(out) for step in episode.steps} == {
        "<think>so be it</think><action>noop</action>"
    }


def test_a_server_that_fails_in_the_middle_ends_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr("gentax.policies.chat_client.BACKOFF_S", 0.001)
    count = iter(range(1000))

    def answer(request):
        return listed(request) if next(count) < 5 else (500, {"error": {"message": "the GPU fell off"}}, {})

    with ChatServer(answer) as server:
        code, _, complaint = run(
            "evaluate", server.url, "-d", "crafting", "--admissible", "--json", str(tmp_path / "o.json"),
        )  # fmt: skip
    assert (code, complaint) == (
        1,
        f"gentax: {server.url} fails (HTTP 500): the GPU fell off (16 requests in a row failed)\n",
    )
    assert not list(tmp_path.iterdir())


def test_an_unusable_server_address_is_refused_in_one_line():
    with ChatServer(listed, ["a", "b"]) as server:
        asked = [
            (2, "has 2 models; name one as", server.url),
            (2, "no URL of a server", "http://"),
            (2, "did you mean 'http://localhost:8000/v1'", "localhost:8000/v1"),
        ]
        for expected, says, where in asked:
            code, _, complaint = run("evaluate", where, "-d", "crafting")
            assert (code, len(complaint.splitlines())) == (expected, 1)
            assert says in complaint
    code, _, complaint = run("tax", "--base", "random", "--tuned", server.url + "#m", "--source", "crafting")
    assert (code, complaint) == (1, f"gentax: cannot reach {server.url}: Connection refused\n")
    code, _, complaint = run("play", "crafting", "--policy", server.url + "#m")
    assert (code, complaint) == (1, f"gentax: cannot reach {server.url}: Connection refused\n")


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_the_server():
    wake = threading.Event()
    with ChatServer(lambda _: str(wake.wait(60))) as server:
        code = "from gentax.cli import main; main()"
        command = [sys.executable, "-c", code, "evaluate", server.url, "-d", "crafting"]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not server.requests and running.poll() is None:
            time.sleep(0.02)
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        _, complaint = running.communicate(timeout=30)
        wake.set()
    assert time.monotonic() - began < 15
    assert running.returncode == 130
    assert "Traceback" not in complaint


OWN = '''
SIZES = []


class Greedy:
    """Takes the first possible action."""

    def reply(self, turns):
        SIZES.append(len(turns))
        return [f"<action>{(turn.env.admissible() or ['wait'])[0]}</action>" for turn in turns]


def talk(messages):
    return "I would rather talk."


def broken(messages):
    return messages[9]
'''


@pytest.fixture
def own_policy(tmp_path, monkeypatch):
    (tmp_path / "cli_policy.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "cli_policy", raising=False)


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "cli_policy:Greedy", "-d", "babyai", "--tasks", "6"],
        ["rollout", "babyai", "--policy", "cli_policy:Greedy", "--tasks", "6", "--out", "e.jsonl.gz"],
        ["probe", "babyai", "--policy", "cli_policy:Greedy", "--trajectories", "6", "--horizon", "4"],
        ["diversity", "babyai", "crafting", "--policy", "cli_policy:Greedy", "--trajectories", "6", "--horizon", "4"],
    ],
)
def test_a_policy_of_the_users_own_plays_no_more_at_once_than_asked_for(own_policy, command):
    code, out, err = run(*command, "--parallel", "2")
    assert (code, err) == (0, "")
    assert "cli_policy:Greedy: 6/" in out
    assert max(sys.modules["cli_policy"].SIZES) == 2
    code, _, err = run(*command, "--parallel", "0")
    assert code == 2
    assert "--parallel" in err


def test_unreadable_replies_of_the_tuned_policy_warn_and_of_the_base_stop(own_policy):
    tax = ["tax", "--source", "babyai", "-t", "crafting", "--tasks", "4", "--interim-analyses", "1"]
    code, _, err = run(*tax, "--base", "cli_policy:Greedy", "--tuned", "cli_policy:talk", "--parallel", "3")
    assert code == 0
    assert max(sys.modules["cli_policy"].SIZES) == 3
    assert "gentax: warning: " in err
    assert "replies of cli_policy:talk hold no action that can be read, such as 'I would rather talk.'" in err
    assert len(err.splitlines()) == 1
    code, _, err = run(*tax, "--base", "cli_policy:talk", "--tuned", "cli_policy:Greedy")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "gentax: stopped: " in err
    assert run(*tax, "--base", "cli_policy:talk", "--tuned", "cli_policy:Greedy", "--allow-unreadable")[0] == 0


def test_unreadable_replies_stop_an_evaluation_unless_they_are_allowed(own_policy):
    command = ["evaluate", "cli_policy:talk", "-d", "babyai", "--tasks", "4"]
    code, _, err = run(*command)
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.endswith("To play on all the same: --allow-unreadable\n")
    code, out, _ = run(*command, "--allow-unreadable")
    assert code == 0
    assert "cli_policy:talk on test tasks" in out


def test_a_fault_of_a_policy_is_one_line(own_policy):
    code, _, err = run("evaluate", "cli_policy:broken", "-d", "babyai", "--tasks", "4")
    line = OWN.splitlines().index("    return messages[9]") + 1
    assert code == 1
    assert err == (
        f"gentax: policy 'cli_policy:broken' failed: cli_policy.py:{line}: IndexError: list index out of range\n"
    )
    code, _, err = run("play", "babyai", "--policy", "cli_policy:brokn")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "did you mean 'broken'" in err

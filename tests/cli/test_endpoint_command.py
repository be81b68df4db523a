"""`evaluate`, `tax`, `rollout` and `play` with a server's URL; what the server refuses is one line and an exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from chat_server import ChatServer, listed
from gentax.cli import main
from gentax.core.episode import read_episodes


def run(capsys, monkeypatch, *args):
    """Run a command here and return its exit code, what it printed and what it complained of."""
    monkeypatch.setattr(sys, "argv", ["gentax", *args])
    with pytest.raises(SystemExit) as left:
        main()
    printed = capsys.readouterr()
    return left.value.code, printed.out, printed.err


def skilled(request):
    """Model `good` crafts by asking for what is possible at random; `bad` talks."""
    return listed(request) if request["model"] == "good" else "I would rather talk."


def test_an_endpoint_is_evaluated(capsys, monkeypatch, tmp_path):
    with ChatServer(skilled, ["good"]) as server:
        code, printed, _ = run(
            capsys, monkeypatch,
            "evaluate", server.url, "-d", "crafting", "--admissible", "--tasks", "4",
            "--json", str(tmp_path / "o.json"),
        )  # fmt: skip
    assert code == 0
    assert "good on test tasks" in printed
    written = json.loads((tmp_path / "o.json").read_text())
    assert written["policy"] == "good"
    assert written["domains"]["crafting"]["invalid"] == 0


def test_the_tax_of_one_model_of_a_server_against_another(capsys, monkeypatch):
    with ChatServer(skilled, ["good", "bad"]) as server:
        code, printed, _ = run(
            capsys, monkeypatch,
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


def test_an_endpoint_is_watched_and_its_episodes_are_kept(capsys, monkeypatch, tmp_path):
    out = tmp_path / "e.jsonl.gz"
    with ChatServer(lambda _: "<think>so be it</think><action>noop") as server:
        code, printed, _ = run(capsys, monkeypatch, "play", "crafting", "--policy", server.url)
        assert code == 0
        assert "(so be it)" in printed
        assert "> noop" in printed
        code, _, _ = run(
            capsys, monkeypatch, "rollout", "crafting", "--policy", server.url, "--tasks", "2", "--out", str(out)
        )
    assert code == 0
    assert {step.text for episode in read_episodes(out) for step in episode.steps} == {
        "<think>so be it</think><action>noop</action>"
    }


def test_a_server_that_fails_in_the_middle_ends_the_command(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("gentax.policies.chat_client.RETRIES", 0)
    count = iter(range(1000))

    def answer(request):
        return (
            listed(request)
            if next(count) < 5
            else (500, {"error": {"message": "the GPU fell off"}}, {"x-should-retry": "false"})
        )

    with ChatServer(answer) as server:
        code, _, complaint = run(
            capsys, monkeypatch,
            "evaluate", server.url, "-d", "crafting", "--admissible", "--json", str(tmp_path / "o.json"),
        )  # fmt: skip
    assert (code, complaint) == (1, f"gentax: {server.url} fails (HTTP 500): the GPU fell off\n")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_asked_is_one_line(capsys, monkeypatch):
    with ChatServer(listed, ["a", "b"]) as server:
        asked = [
            (2, "has 2 models; name one as", server.url),
            (2, "no URL of a server", "http://"),
            (2, "did you mean 'http://localhost:8000/v1'", "localhost:8000/v1"),
        ]
        for expected, says, where in asked:
            code, _, complaint = run(capsys, monkeypatch, "evaluate", where, "-d", "crafting")
            assert (code, len(complaint.splitlines())) == (expected, 1)
            assert says in complaint
    code, _, complaint = run(
        capsys, monkeypatch, "tax", "--base", "random", "--tuned", server.url + "#m", "--source", "crafting"
    )
    assert (code, complaint) == (1, f"gentax: cannot reach {server.url}: Connection refused\n")
    code, _, complaint = run(capsys, monkeypatch, "play", "crafting", "--policy", server.url + "#m")
    assert (code, complaint) == (1, f"gentax: cannot reach {server.url}: Connection refused\n")


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

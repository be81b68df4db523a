"""Our domains in verifiers: its own `vf-eval` plays them against a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gentax
from chat_server import ChatServer
from gentax.integrations.sample_logs import read_recorded

pytest.importorskip("verifiers.v1", reason="pip install verifiers")


def evaluate(server, folder, *flags):
    """Run `vf-eval` on two tasks and return its traces."""
    bin_folder = Path(sys.executable).parent
    command = [
        bin_folder / "vf-eval", "gentax_verifiers", "--model", "toy", "--client.base-url", server.url,
        "--client.api-key-var", "NO_KEY", "-n", "2", "--no-rich", "--output-dir", folder, *flags,
    ]  # fmt: skip
    source = str(Path(gentax.__file__).parents[1])
    path = os.pathsep.join([str(bin_folder), os.environ["PATH"]])
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, "PYTHONPATH": source, "PATH": path, "NO_KEY": "none"},
        cwd=folder.parent, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (traces,) = folder.rglob("traces.jsonl")
    return traces


def test_vf_eval_plays_a_domain_and_its_traces_are_read_back(tmp_path):
    env = gentax.make("crafting")
    _, info = env.reset(options={"index": 0, "split": "train"})
    actions, over = [], False
    while not over:
        actions.append(env.expert().action)
        _, _, terminated, truncated, _ = env.step(actions[-1])
        over = terminated or truncated

    def answer(request):
        """Play the first task by its expert, and the other one badly."""
        turn = sum(message["role"] == "assistant" for message in request["messages"])
        return f"<action>{actions[turn] if info['goal'] in str(request['messages'][0]['content']) else 'noop'}</action>"

    with ChatServer(answer) as server:
        traces = evaluate(server, tmp_path / "out", "--env.taskset.domain", "crafting")
    records = [json.loads(line) for line in traces.read_text().splitlines()]
    traced = [trace for record in records for trace in record.get("traces", [record])]
    assert sorted(trace["rewards"]["success"]["score"] for trace in traced) == [0.0, 1.0]
    assert not any(trace.get("errors") for trace in traced)
    assert sorted(read_recorded(traces, traces).before_K.tolist()) == [0.0, 1.0]

"""Our domains in verifiers, whose own `vf-eval` plays them against a server; and its packages as our domains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gentax
from chat_server import ChatServer
from gentax.core import Outcome, Task, split_of
from gentax.domains.check import QUICK
from gentax.integrations.sample_logs import read_recorded
from gentax.policies import load_policy
from gentax.rollouts import rollout

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


SUMS = """
import verifiers.v1 as vf

class Data(vf.TaskData):
    answer: str

class Sum(vf.Task[Data, vf.State, vf.TaskConfig]):
    @vf.reward(weight=1.0)
    async def right(self, trace) -> float:
        if "scorer" in trace.last_reply:
            raise RuntimeError("no such score")
        return float(trace.last_reply.strip() == self.data.answer)

class Sums(vf.Taskset[Sum, vf.TasksetConfig]):
    def load(self):
        for n in range(60):
            data = Data(prompt=f"1 + {n} =", system_prompt="Say the number alone.", answer=str(n + 1))
            yield Sum(data, self.config.task)

__all__ = ["Sums"]
"""
DUEL = """
class Seats(vf.EnvConfig):
    first: vf.AgentConfig = vf.AgentConfig()
    second: vf.AgentConfig = vf.AgentConfig()

class Duel(vf.Env[Seats]):
    async def run(self, task, agents):
        await agents.first.run(task)

__all__ = ["Duel", "Sums"]
"""


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """The packages `sums_vf`, questions with a scorer of their own, and `duel_vf`, for two agents."""
    (tmp_path / "sums_vf.py").write_text(SUMS)
    (tmp_path / "duel_vf.py").write_text(SUMS + DUEL)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_package_plays_and_scores_its_own_tasks(packages):
    env = gentax.make("verifiers:sums_vf")
    for index in range(3):
        shown, info = env.reset(options={"index": index, "split": "test"})
        system, question = shown.split("\n\n")
        assert system == "Say the number alone."
        assert split_of(info["content"]) == "test"
        answer = int(question.split()[2]) + 1
        assert env.step(str(answer))[1:4] == (1.0, True, False)
        env.reset(options={"index": index, "split": "test"})
        assert env.step("xyzzy")[4]["success"] is False
    env.close()
    report = gentax.check("verifiers:sums_vf", effort=QUICK)
    assert report.passed, report.failed
    claims = next(result for result in report.results if result.name == "claims")
    assert "success is a total reward of 1 or more" in claims.message


def test_what_a_package_breaks_is_an_error_and_the_others_go_on(packages):
    tasks = [Task("verifiers:sums_vf", "default", "test", index) for index in range(3)]
    replies = iter(["the scorer fails", "1", "2"])
    first, *others = rollout(load_policy(lambda _: f"<action>{next(replies)}</action>"), tasks, parallel=1)
    assert (first.outcome, "no such score" in first.error) == (Outcome.ERROR, True)
    assert {episode.outcome for episode in others} <= {Outcome.SUCCESS, Outcome.FAILURE}


def test_a_package_with_several_turns_is_asked_until_it_ends():
    """Our own taskset, through verifiers and back: a message for each observation, and its reward at the end."""
    outer, inner = gentax.make("verifiers:gentax_verifiers"), gentax.make("sokoban")
    shown, _ = outer.reset(options={"index": 0, "split": "test"})
    index = next(n for n in range(128) if inner.reset(options={"index": n, "split": "train"})[0] in shown)
    inner.reset(options={"index": index, "split": "train"})
    outer.reset(options={"index": 1, "split": "test"})  # one that is left in the middle
    assert outer.reset(options={"index": 0, "split": "test"})[0] == shown
    over = False
    while not over:
        action = inner.expert().action
        expected, _, over, _, _ = inner.step(action)
        seen, reward, done, _, info = outer.step(f"<action>{action}</action>")
        assert done == over
        assert over or seen == expected
    assert (reward, info["success"]) == (1.0, True)
    outer.close()


def test_packages_that_cannot_be_played_are_named(packages):
    with pytest.raises(gentax.UsageError, match=r"duel_vf cannot be loaded: .* agents first, second, and one can be"):
        gentax.make("verifiers:duel_vf")
    with pytest.raises(gentax.UsageError, match="no_such_vf cannot be loaded: ModuleNotFoundError"):
        gentax.make("verifiers:no_such_vf")

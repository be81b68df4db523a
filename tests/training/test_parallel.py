"""Several processes learn what one would: whole or sharded weights, uneven work, stopped and continued."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import several
import torch

from gentax.core import UsageError
from gentax.core.settings import read_settings
from gentax.models.device import resolve_device
from gentax.policies.local import load_local_policy
from gentax.training import TrainConfig, train
from gentax.training.distributed import World, join

pytestmark = pytest.mark.slow

KINDS = ("full", "shard", "shard-lora")


@pytest.fixture(scope="module")
def two(tiny, tmp_path_factory) -> dict[str, dict]:
    """What two processes come to, by kind."""
    script = str(Path(several.__file__))
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", script]
    out = str(tmp_path_factory.mktemp("two"))
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*start, out, str(tiny), *KINDS], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return {row["kind"]: row for row in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def one(tiny, tmp_path_factory) -> dict[str, dict]:
    """What one process comes to, by kind."""
    found = several.main(str(tmp_path_factory.mktemp("one")), str(tiny), "full", "lora")
    return {row["kind"]: row["processes"][0] for row in found}


@pytest.mark.parametrize(("kind", "alone"), [("full", "full"), ("shard", "full"), ("shard-lora", "lora")])
def test_two_processes_learn_what_one_learns(one, two, kind, alone):
    expected = one[alone]
    assert len(two[kind]["processes"]) == 2
    for found in two[kind]["processes"]:
        assert np.allclose(found["rows"], expected["rows"], atol=1e-5)
        assert np.allclose(found["weights"], expected["weights"], atol=1e-4)
    first, second = two[kind]["processes"]
    assert first["weights"] == second["weights"]


def test_the_weights_have_moved(one, tiny):
    start = several.sample(load_local_policy(tiny).model.state_dict())
    for kind in ("full", "lora"):
        assert np.abs(np.subtract(start, one[kind]["weights"])).max() > 1e-3


def test_sharded_weights_are_held_by_halves(one, two):
    for found in two["full"]["processes"]:
        assert found["held"] == one["full"]["held"]
    for found in two["shard"]["processes"]:
        assert found["held"] == pytest.approx(one["full"]["held"] / 2, rel=0.02)
    adapters = one["lora"]["held"] - one["full"]["held"]
    for found in two["shard-lora"]["processes"]:
        assert found["held"] == pytest.approx(one["full"]["held"] / 2 + adapters, rel=0.02)


def test_processes_hear_each_other(two):
    assert two["full"]["talk"] == {
        "total": 2.0,
        "most": 7,
        "everyone": [{"ü": ""}, {"ü": "x"}],
        "gradients": [[1.0, 1.0], None],
    }


def test_no_thread_of_a_process_group_outlives_its_run(two):
    """One that is still there when Python ends can abort the process after its work is done."""
    assert {kind: found["threads_left"] for kind, found in two.items()} == dict.fromkeys(KINDS, 0)


WHOLE_RUN = {
    "source": "sokoban", "max_steps": 2, "tasks_per_step": 4, "num_generations": 2,
    "precision": "fp32",  # in bf16 two processes round otherwise than one, and may sample another token
    "rollout": {"temperature": 1.0},
    "sft": {"max_pairs": 40}, "forgetting": {"replay": 1.0, "replay_domains": ["crafting"]},
    "algorithm": {"advantage_estimator": "reinforce++"},
}  # fmt: skip
COMMAND = """
from gentax.training import learner, rollout_worker
rollout_worker.VALIDATION_TASKS = 8
{}
from gentax.cli import main
main()
"""
# The model has room in one process: without any share of the memory for whole models it is sharded all the same.
NO_ROOM = "learner.SHARD_ABOVE = 0.0"


@pytest.fixture(scope="module")
def run_alone(tmp_path_factory) -> Path:
    """The last checkpoint of a run of one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gentax.training.rollout_worker.VALIDATION_TASKS", 8)
        return train(read_settings(TrainConfig, WHOLE_RUN, "recipe"), tmp_path_factory.mktemp("alone") / "run")


@pytest.mark.parametrize("shard", [False, True])
def test_a_whole_run_of_two_processes_is_that_of_one(run_alone, tmp_path, shard):
    """The command itself: experts, replay, policy gradient, validation, checkpoints; each process plays its share."""
    (tmp_path / "recipe.yaml").write_text(json.dumps(WHOLE_RUN))
    (tmp_path / "command.py").write_text(COMMAND.format(NO_ROOM if shard else ""))
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*start, str(tmp_path / "command.py"), "train", str(tmp_path / "recipe.yaml"), "--out"]
    done = subprocess.run(
        [*command, str(tmp_path / "two")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("model: ") == 1  # the first process has the word
    assert ("sharded" in done.stdout) == shard
    one, two = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (run_alone.parent, tmp_path / "two")
    )
    assert [row["step"] for row in two] == [1, 2]
    for key in ("success", "reward", "length", "invalid", "tokens", "learned_tokens", "validation_success"):
        assert two[0][key] == pytest.approx(one[0][key]), key
    for key in ("loss", "entropy", "grad_norm", "replay_kl"):
        assert two[0][key] == pytest.approx(one[0][key], rel=1e-3, abs=1e-5), key
    start, mine, theirs = (
        torch.cat([p.detach().flatten() for p in load_local_policy(folder).model.parameters()])
        for folder in ("base", run_alone, tmp_path / "two" / run_alone.name)
    )
    # Adam takes a whole step where a gradient is nothing but rounding, which differs.
    assert (mine - theirs).norm() < 0.02 * (mine - start).norm()


def test_without_torchrun_a_process_is_alone():
    with join() as world:
        assert world == World()
        assert several.talk(world) | {"gradients": None} == {
            "total": 0.5, "most": 0, "everyone": [{"ü": ""}], "gradients": None,
        }  # fmt: skip


def test_each_process_takes_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda", 0)
    assert resolve_device("cuda", 1, 8) == torch.device("cuda", 1)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match=r"cuda:2 is not there: this machine has 2 GPUs"):
        resolve_device("auto", 2, 3)
    with pytest.raises(UsageError, match="cuda:1 is one GPU, and there are 2 processes"):
        resolve_device("cuda:1", 0, 2)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match="finds no GPU"):
        resolve_device("cuda")
    with pytest.raises(UsageError, match="did you mean 'cuda'"):
        resolve_device("cdua")

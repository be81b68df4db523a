"""The tax beside the loss, in transformers' Trainer and TRL's with the shipped model, in one process and in two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

from gentax.core import UsageError
from gentax.integrations.tax_callback import TaxCallback
from gentax.policies.local import load_local_policy
from gentax.rollouts import RolloutConfig

pytestmark = pytest.mark.slow


def trainer_of(out, **settings) -> Trainer:
    """A trainer that unlearns everything but one sentence."""
    policy = load_local_policy("base")
    ids = policy.tokenizer("<action>open the door</action>")["input_ids"]
    rows = [{"input_ids": ids, "labels": ids} for _ in range(8)]
    args = TrainingArguments(
        output_dir=str(out),
        max_steps=4,
        per_device_train_batch_size=2,
        learning_rate=3e-2,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        seed=1,
        save_strategy="no",
        **settings,
    )

    def collate(rows):
        return {key: torch.tensor([row[key] for row in rows]) for key in rows[0]}

    return Trainer(
        model=policy.model.train(),
        args=args,
        train_dataset=rows,
        data_collator=collate,
        processing_class=policy.tokenizer,
    )


def test_the_tax_is_logged_beside_the_loss_and_training_stays_the_same(tmp_path):
    plain = trainer_of(tmp_path / "plain")
    plain.train()
    trainer = trainer_of(tmp_path / "with")
    callback = TaxCallback(trainer, ["crafting", "sokoban"], every=2, tasks=8, config=RolloutConfig(horizon=6))
    trainer.add_callback(callback)
    trainer.train()

    def losses(trainer):
        return [row["loss"] for row in trainer.state.log_history if "loss" in row]

    assert losses(trainer) == losses(plain)
    assert trainer.model.training
    rows = [row for row in trainer.state.log_history if "success/crafting" in row]
    assert [row["step"] for row in rows] == [2, 4]
    assert callback.base is not None
    before = callback.base.success()["crafting"].value
    assert rows[-1]["drop/crafting"] == pytest.approx(before - rows[-1]["success/crafting"])
    assert rows[-1]["success/crafting"] < before
    report = callback.report
    assert report.targets == ("crafting", "sokoban")
    assert rows[-1]["tax"] == report.tax.value == 1.0  # nothing is left of what the base could do
    assert rows[-1]["tax_low"] == report.tax.low < 1.0


def test_a_continued_run_needs_the_evaluation_before_it(tmp_path):
    trainer = trainer_of(tmp_path)
    callback = TaxCallback(trainer, ["crafting"], tasks=2)
    trainer.state.global_step = 3
    with pytest.raises(UsageError, match="goes on at step 3"):
        callback.on_train_begin(trainer.args, trainer.state, trainer.control)
    with pytest.raises(UsageError, match="every 1 step or more"):
        TaxCallback(trainer, ["crafting"], every=0)


def logged(came, name):
    return [(row["step"], row[name]) for row in came["log"] if name in row]


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_trainers_of_trl_log_the_tax_and_train_as_without_it(tmp_path, monkeypatch, kind):
    pytest.importorskip("trl", reason="the extra gentax[trl] is not installed")
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    import callback_run

    came, plain = (callback_run.main(tmp_path, kind, measured) for measured in (True, False))
    assert [step for step, _ in logged(came, "drop/crafting")] == [1, 2]
    for name in ("loss", "grad_norm"):
        assert logged(came, name) == logged(plain, name)
    assert came["weights"] == plain["weights"]


# With `--cpu` accelerate 1.15 starts one process, unless MPI starts more; the trainer's own use_cpu does it, too.
ACCELERATE = ["accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes", "2"]
TORCHRUN = ["torch.distributed.run", "--nproc-per-node", "2", "--standalone"]


@pytest.mark.parametrize(
    ("kind", "launcher"), [("sft", ACCELERATE), ("grpo", TORCHRUN)], ids=["accelerate", "torchrun"]
)
def test_of_two_processes_the_first_plays_and_the_other_waits(tmp_path, kind, launcher):
    pytest.importorskip("trl", reason="the extra gentax[trl] is not installed")
    start = [sys.executable, "-m", *launcher, str(Path(__file__).with_name("callback_run.py"))]
    env = os.environ | {"OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    done = subprocess.run([*start, str(tmp_path), kind], env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert (first["played"], second["played"]) == (True, False)
    assert first["steps"] == second["steps"] == 2
    assert first["weights"] == second["weights"]
    assert [step for step, _ in logged(first, "drop/crafting")] == [1, 2]

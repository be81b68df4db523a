"""The tax beside the loss, in transformers' Trainer with the shipped model."""

from __future__ import annotations

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

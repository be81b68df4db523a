"""The generalization tax beside the loss: a callback for the Trainer of transformers and those of TRL.

    trainer.add_callback(TaxCallback(trainer, ["babyai", "crafting"], every=50))

The targets are played before the first step, every so many steps and at the end; the tax, with its interval, goes where
the trainer's losses go: `log_history`, TensorBoard, Weights & Biases. Training stays what it is without the callback:
playing draws no global random numbers. Not supported: weights in shards (FSDP, DeepSpeed); measure their checkpoints
with `gentax tax`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gentax.core import UsageError
from gentax.evals.evaluate import Evaluation, evaluate
from gentax.evals.paired_eval import tax
from gentax.metrics.statistics import Estimate
from gentax.metrics.tax import TaxReport
from gentax.policies.local import LocalPolicy
from gentax.rollouts import RolloutConfig

UNNAMED = "the training data"


class TaxCallback(TrainerCallback):
    """Play the targets every `every` steps and log the tax.

    Logged, where each is defined: `tax` (a share: 0 is free, 1 is all lost), `tax_low` and `tax_high` (its 95 %
    interval), `success/DOMAIN` (percent), `drop/DOMAIN` (points; positive is a loss), with `source` the `gain`.

    Args:
        trainer: the trainer that the callback is added to; it logs through it.
        targets: domains that training does not touch, with levels if a mapping.
        every: steps between two measurements; the trainer's `eval_steps` when None, else only at the end.
        source: the domain that is trained on, if it is one of gentax: it is played too, for the gain at home.
        touched: targets that entered training in any form; the tax is over the others too (`tax_untouched`).
        tasks: test tasks of each domain. The interval of 64 tasks is wide, and that of 16 says little.
        base: the evaluation before training, of a run that is continued (`callback.base` of the first part).
        config: how episodes are played.

    After each measurement `report` is the whole `TaxReport`.

    Raises:
        UsageError: an unknown domain or level; a model whose replies cannot be read; a continued run without `base`;
            weights in shards.
    """

    def __init__(
        self,
        trainer: Trainer,
        targets: Iterable[str] | Mapping[str, str | None],
        *,
        every: int | None = None,
        source: str | None = None,
        touched: Set[str] = frozenset(),
        tasks: int = 64,
        base: Evaluation | None = None,
        config: RolloutConfig | None = None,
    ) -> None:
        targets = [targets] if isinstance(targets, str) else targets
        self.levels = dict(targets) if isinstance(targets, Mapping) else dict.fromkeys(targets)
        if source is not None:
            self.levels.setdefault(source, None)
        if every is not None and every < 1:
            raise UsageError(f"the tax is measured every 1 step or more, not every {every}")
        self.trainer, self.every, self.source, self.touched = trainer, every, source or UNNAMED, touched
        self.tasks, self.base, self.config = tasks, base, config
        self.report: TaxReport | None = None
        self._measured_at = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if getattr(self.trainer, "is_fsdp_enabled", False) or getattr(self.trainer, "is_deepspeed_enabled", False):
            raise UsageError("TaxCallback cannot play with weights in shards: measure the checkpoints with gentax tax")
        if self.base is None and state.global_step:
            raise UsageError(
                f"the run goes on at step {state.global_step}: give TaxCallback the evaluation before training, base="
            )
        if self.base is None and state.is_world_process_zero:
            self.base = self._evaluate(stop_if_unreadable=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        every = self.every or state.eval_steps
        if every and state.global_step % int(every) == 0:
            self._measure(state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._measure(state, control)

    def _measure(self, state: TrainerState, control: TrainerControl) -> None:
        """Play the targets with the present weights and log what they say. The other processes wait."""
        if self._measured_at != state.global_step and state.is_world_process_zero:
            assert self.base is not None
            # A policy that has collapsed in training is a result.
            self.report = tax(self.base, self._evaluate(stop_if_unreadable=False), self.source, touched=self.touched)
            due = control.should_log
            Trainer.log(self.trainer, logged(self.report))  # TRL's own `log` would average its metrics up to here
            control.should_log = due  # the loss of this step has a row of its own
        self._measured_at = state.global_step
        self.trainer.accelerator.wait_for_everyone()

    def _evaluate(self, stop_if_unreadable: bool) -> Evaluation:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        training, states = model.training, (random.getstate(), np.random.get_state(), torch.get_rng_state())
        model.eval()
        try:
            policy = LocalPolicy(model, self.trainer.processing_class, "the policy")
            return evaluate(
                policy,
                self.levels,
                tasks=self.tasks,
                config=self.config,
                stop_if_unreadable=stop_if_unreadable,
                progress=False,
            )
        finally:
            model.train(training)
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])


def logged(report: TaxReport) -> dict[str, float]:
    """Return a tax report as the numbers that a tracker takes; a measure without a value is left out."""
    values: dict[str, float] = {}
    for name in ("tax", *(["tax_untouched"] if report.touched else [])):
        estimate = getattr(report, name)
        if isinstance(estimate, Estimate):
            values |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    if isinstance(report.delta_id, Estimate):
        values["gain"] = report.delta_id.value
    values |= {f"success/{domain}": estimate.value for domain, estimate in report.after.items()}
    return values | {f"drop/{domain}": estimate.value for domain, estimate in report.drop.items()}

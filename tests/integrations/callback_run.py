"""What `test_tax_callback.py` runs, alone and in several processes: trainers of TRL with the tax beside the loss.

Run as `callback_run.py OUT KIND`; every process writes what it came to into the folder OUT.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import trl
from datasets import Dataset

from gentax.integrations.tax_callback import TaxCallback
from gentax.policies.local import load_local_policy
from gentax.rollouts import RolloutConfig

SETTINGS: dict[str, Any] = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "learning_rate": 3e-2,
    "logging_steps": 1,
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "save_strategy": "no",
    "seed": 1,
}


def trainer_of(out: Path, kind: str) -> Any:
    """A trainer that unlearns what the shipped model could do: by one sentence, or by a reward for long replies."""
    policy = load_local_policy("base")
    tokenizer, model = policy.tokenizer, policy.model.train()
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
    if kind == "sft":
        rows = Dataset.from_list([{"text": "<action>open the door</action>"}] * 8)
        args = trl.SFTConfig(output_dir=str(out), max_length=64, **SETTINGS)
        return trl.SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)
    rows = Dataset.from_list([{"prompt": f"Say {word}."} for word in ("red", "green", "blue", "gold")])
    args = trl.GRPOConfig(output_dir=str(out), num_generations=2, max_completion_length=8, **SETTINGS)
    return trl.GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [float(text.count("e")) for text in completions],
        args=args,
        train_dataset=rows,
        processing_class=tokenizer,
    )


def main(out: Path, kind: str, measured: bool = True) -> dict[str, Any]:
    """Train for two steps, with a measurement before the first and after each; return what came of it."""
    trainer = trainer_of(out, kind)
    callback = TaxCallback(trainer, ["crafting"], every=1, tasks=2, config=RolloutConfig(horizon=2))
    if measured:
        trainer.add_callback(callback)
    trainer.train()
    weights = float(sum(parameter.detach().double().abs().sum() for parameter in trainer.model.parameters()))
    return {
        "played": callback.base is not None and callback.report is not None,
        "steps": trainer.state.global_step,
        "log": trainer.state.log_history,
        "weights": weights,
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    came = main(folder, sys.argv[2])
    (folder / f"rank{os.environ.get('RANK', '0')}.json").write_text(json.dumps(came))

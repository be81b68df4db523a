"""How near a gradient in bf16 is to that in fp32: as a tree of prefixes and in padded rows, of weights in both formats.

    python benchmarks/gradient_precision.py [--model FOLDER] [--pairs 16] [--domain webshop]

One step of imitation with LoRA on experts' state-action pairs (`window(2)`, admissible actions and the examples of
`few_shot.jinja` in the prompt), by the same code and the same batch each time. The reference is padded rows in fp32,
which are PyTorch's own attention and no code of gentax. Printed: the loss, the norm of the gradient before clipping,
and the cosine of the whole gradient to the reference's. bf16 arithmetic is taken whether or not the processor has it.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from training_step import quiet

from gentax.models.scoring import scoring_method
from gentax.policies.local import load_local_policy
from gentax.rollouts import RolloutConfig
from gentax.training.config import LoraConfig, SFTConfig, TrainConfig
from gentax.training.learner import learner_of
from gentax.training.sft import SFTData

KINDS = (  # number format of the weights, of the arithmetic, and how sequences are read
    ("float32", "fp32", "padded"),
    ("float32", "fp32", "tree"),
    ("float32", "bf16", "padded"),
    ("float32", "bf16", "tree"),
    ("bfloat16", "bf16", "padded"),
    ("bfloat16", "bf16", "tree"),
)


def gradient(config: TrainConfig, device: str, way: str, examples: Path) -> tuple[dict[str, float], torch.Tensor]:
    """Return the row of the first step, and its gradient after clipping."""
    torch.manual_seed(0)  # of the adapters
    policy = load_local_policy(config.model, config.options(device))
    imitation = SFTData.collect(config, policy, examples)
    learner = learner_of(policy, config)
    scoring_method(learner.model)  # lets the model attend as a tree where it can
    if way == "padded":
        learner.model.set_attn_implementation("sdpa")
    learner.model.gentax_scoring = way
    optimizer = imitation.optimizer(learner.parameters)
    found: list[torch.Tensor] = []
    optimizer.register_step_pre_hook(
        lambda *_: found.append(torch.cat([p.grad.flatten().float().cpu() for p in learner.parameters]))
    )
    return imitation.step(1, learner, optimizer), found[0]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base", help="a model folder; the model that ships with gentax without it")
    parser.add_argument("--domain", default="webshop", help="whose expert is imitated")
    parser.add_argument("--pairs", type=int, default=16, help="in the batch")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    quiet()
    settings: dict[str, Any] = {"prompt_template": str(Path(__file__).parent / "few_shot.jinja")}
    rollout_config = RolloutConfig(
        context="window(2)", admissible=True, max_new_tokens=32, **({} if args.model == "base" else settings)
    )
    config = TrainConfig(
        model=args.model,
        source=args.domain,
        max_steps=0,
        rollout=rollout_config,
        sft=SFTConfig(mixture={args.domain: 1.0}, max_pairs=args.pairs),
        lora=LoraConfig(),
    )
    print(f"{args.model}, {args.pairs} pairs of {args.domain}, torch {torch.__version__} on {args.device}")
    print(f"{'weights':10}{'arithmetic':>11}{'read as':>9}{'loss':>9}{'norm':>8}{'cosine to fp32':>16}")
    reference = None
    with tempfile.TemporaryDirectory() as scratch:
        for dtype, precision, way in KINDS:
            of = replace(config, dtype=dtype, precision=precision)
            row, found = gradient(of, args.device, way, Path(scratch) / "examples.safetensors")
            reference = found if reference is None else reference
            cosine = float(torch.cosine_similarity(found.double(), reference.double(), dim=0))
            print(
                f"{dtype:10}{precision:>11}{way:>9}{row['loss']:9.4f}{row['grad_norm']:8.2f}{cosine:16.4f}", flush=True
            )


if __name__ == "__main__":
    main()

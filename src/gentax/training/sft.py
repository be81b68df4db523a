"""Supervised fine-tuning: one optimizer step on a batch of weighted token sequences, and a loop over many.

Which tokens are learned is in the examples (`trajectories.py`); the fine-tuning of a run, which can be continued, takes
its batches from `sft_data.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from gentax.core import NonFiniteLoss
from gentax.core.episode import common_prefix_length
from gentax.core.process import freed_memory_kept
from gentax.core.settings import settings
from gentax.models.scoring import make_batches, token_logprobs
from gentax.training.distributed import World, clip_grad_norm, in_lockstep
from gentax.training.trajectories import Example

TOKENS = 2880  # distinct tokens of a batch
MAX_EXAMPLES = 128  # of a batch: where many share a prefix they add few distinct tokens


@settings
class SFTSettings:
    """Settings of the optimizer loop."""

    steps: int = 1000
    """Optimizer steps."""
    lr: float = 2e-3
    """Peak learning rate; warmed up linearly, then lowered along a cosine to a twentieth."""
    warmup: float = 0.03
    """Share of the run that warms up."""
    weight_decay: float = 0.05
    """Of AdamW, on matrices."""
    precision: str = "auto"
    """`fp32`, `bf16` (autocast) or `auto`, which is bf16 where the hardware has it."""
    seed: int = 0
    """Order of the examples."""


@freed_memory_kept()
def fine_tune(
    model: Any,
    stream: Callable[[np.random.Generator], Example],
    settings: SFTSettings,
    on_step: Callable[[dict[str, float]], None] = lambda row: None,
) -> None:
    """Train `model` in place on examples sampled from `stream`, which never ends. Raises NonFiniteLoss."""
    rng = np.random.default_rng(settings.seed)
    parameters = list(model.parameters())
    optimizer = adamw(parameters, settings)
    batches = pack_batches(iter(lambda: stream(rng), None))
    tokens = 0
    model.train()
    for step in range(settings.steps):
        done = step / settings.steps
        row = sft_step(model, parameters, next(batches), optimizer, settings, done, f"step {step}")
        tokens += int(row["tokens"])
        on_step(row | {"step": step + 1, "tokens": tokens, "done": done})
    model.eval()


def adamw(parameters: Iterable[torch.nn.Parameter], settings: SFTSettings) -> torch.optim.Optimizer:
    """Return an AdamW that decays matrices and leaves vectors (norms, biases) alone."""
    parameters = list(parameters)
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(0.9, 0.95),
        fused=True,
    )


def sft_step(
    model: Any,
    parameters: Sequence[torch.nn.Parameter],
    batch: Sequence[Example],
    optimizer: torch.optim.Optimizer,
    settings: SFTSettings,
    done: float,
    where: str,
    world: World = World(),  # noqa: B008  (frozen)
    extra_loss: Callable[[], dict[str, float]] | None = None,
) -> dict[str, float]:
    """Take one optimizer step; return the loss (nats a token), the gradient's norm and the tokens of the batch.

    Args:
        model: what scores the tokens.
        parameters: those to learn; all of the model's others must be frozen.
        batch: the same in every process, each of which computes its part.
        done: how much of the run is done, 0 to 1; the learning rate follows from it.
        where: names the step in the error.
        extra_loss: adds the gradient of a loss of its own; its metrics are returned too.

    Raises:
        NonFiniteLoss: the loss or its gradient stopped being a number; the weights are as before this step.
    """
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * cosine_with_warmup(done, settings.warmup)
    total = float(sum(example.weight_T[1:].sum() for example in batch))
    loss = _backward(model, batch[world.rank :: world.size], total, settings.precision, world)
    more = extra_loss() if extra_loss is not None else {}
    world.sum_gradients(parameters)
    norm = clip_grad_norm(parameters, 1.0)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        optimizer.zero_grad(set_to_none=True)
        raise NonFiniteLoss(f"the loss became {loss}, its gradient {norm}, at {where}")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"loss": loss, "grad_norm": norm, "tokens": sum(len(example.ids_T) for example in batch), **more}


def cosine_with_warmup(done: float, warmup: float) -> float:
    """Return the share of the peak learning rate when `done` of the run is done: a ramp, times a cosine to 0.05."""
    ramp = min(1.0, done / warmup) if warmup else 1.0
    return max(1e-3, ramp * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))))


def pack_batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Yield the examples in order, in batches of at most `TOKENS` distinct tokens and `MAX_EXAMPLES` examples; a longer
    one is a batch of its own."""
    batch: list[Example] = []
    distinct = 0
    for example in examples:
        new = len(example.ids_T) - max(
            (common_prefix_length(member.ids_T, example.ids_T) for member in batch), default=0
        )
        if batch and (distinct + new > TOKENS or len(batch) == MAX_EXAMPLES):
            yield batch
            batch, distinct, new = [], 0, len(example.ids_T)
        batch.append(example)
        distinct += new
    if batch:
        yield batch


def _backward(model: Any, batch: Sequence[Example], total: float, precision: str, world: World) -> float:
    """Accumulate the gradient of the weighted losses of `batch` over `total`; return that loss of all processes."""
    ids, weights = [e.ids_T for e in batch], [e.weight_T for e in batch]
    loss = 0.0
    parts = make_batches(model, ids, [w > 0 for w in weights])
    for part in in_lockstep(model, parts, world):
        weight_S = torch.from_numpy(np.concatenate([weights[i][1:][weights[i][1:] > 0] for i in part.sequences]))
        nll_S = -token_logprobs(model, part, precision).logprob_S
        value = (nll_S * weight_S.to(nll_S.device)).sum() / total
        value.backward()
        loss += float(value.detach())
    return world.sum(loss)

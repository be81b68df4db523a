"""Supervised learning: one optimiser step on a batch of examples, the rate it is taken at, and the loop of a stream.

Which tokens are learned is the examples' own affair (`example.py`); imitation has a loop that can be continued
(`imitation.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gentax.core import NonFiniteLoss
from gentax.core.episode import common_prefix_length
from gentax.core.process import freed_memory_kept
from gentax.models.scoring import make_batches, token_logprobs
from gentax.training.distributed import World, clip, in_step
from gentax.training.trajectories import Example

TOKENS = 2880  # distinct tokens of a batch
MOST = 128  # examples of a batch: where many are alike they add few distinct tokens, and still a step should end


@dataclass(frozen=True)
class SFT:
    """How supervised training runs."""

    seconds: float | None = None
    """Stop after this long; null to make `steps` count."""
    steps: int = 1000
    """Optimiser steps, when `seconds` is null."""
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
def sft(
    model: Any,
    stream: Callable[[np.random.Generator], Example],
    settings: SFT,
    on_step: Callable[[dict[str, float]], None] = lambda row: None,
) -> None:
    """Train `model` in place on examples drawn from `stream`, which never ends.

    Raises:
        NonFiniteLoss: the loss stopped being a number; the message says at which step.
    """
    rng = np.random.default_rng(settings.seed)
    parameters = list(model.parameters())
    optimizer = adamw(parameters, settings)
    drawn = packed(iter(lambda: stream(rng), None))
    began = time.monotonic()
    step = tokens = 0
    model.train()
    while True:
        spent = time.monotonic() - began
        done = step / settings.steps if settings.seconds is None else spent / settings.seconds
        if done >= 1:
            break
        batch = next(drawn)
        row = learn(model, parameters, batch, optimizer, settings, done, f"step {step}")
        step += 1
        tokens += int(row["tokens"])
        on_step(row | {"step": step, "tokens": tokens, "done": done, "seconds": spent})
    model.eval()


def adamw(parameters: Iterable[torch.nn.Parameter], settings: SFT) -> torch.optim.Optimizer:
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


def learn(
    model: Any,
    parameters: Sequence[torch.nn.Parameter],
    batch: Sequence[Example],
    optimizer: torch.optim.Optimizer,
    settings: SFT,
    done: float,
    where: str,
    world: World = World(),  # noqa: B008  (frozen)
    extra: Callable[[], dict[str, float]] | None = None,
) -> dict[str, float]:
    """Take one optimiser step; return the loss (nats a token), the gradient's norm and the tokens of the batch.

    Args:
        model: what scores the tokens.
        parameters: those to learn; all of the model's others must be frozen.
        batch: the same in every process, each of which computes its part.
        optimizer: over `parameters`.
        settings: rate, warm-up and precision.
        done: how much of the run is done, 0 to 1; the learning rate follows from it.
        where: said in the error.
        world: the processes that learn together.
        extra: adds the gradient of a loss of its own; what it returns is reported too.

    Raises:
        NonFiniteLoss: the loss or its gradient stopped being a number; the weights are as before this step.
    """
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * rate(done, settings.warmup)
    total = float(sum(example.weight_T[1:].sum() for example in batch))
    loss = _backward(model, batch[world.rank :: world.size], total, settings.precision, world)
    more = extra() if extra is not None else {}
    world.add_gradients(parameters)
    norm = clip(parameters, 1.0)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        optimizer.zero_grad(set_to_none=True)
        raise NonFiniteLoss(f"the loss became {loss}, its gradient {norm}, at {where}")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"loss": loss, "grad_norm": norm, "tokens": sum(len(example.ids_T) for example in batch), **more}


def rate(done: float, warmup: float) -> float:
    """Return the share of the peak learning rate when `done` of the run is done: a ramp, times a cosine to 0.05."""
    ramp = min(1.0, done / warmup) if warmup else 1.0
    return max(1e-3, ramp * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))))


def packed(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Yield the examples, in order, in batches of at most `TOKENS` distinct tokens and `MOST` examples; a longer
    example stands alone."""
    batch: list[Example] = []
    distinct = 0
    for example in examples:
        new = len(example.ids_T) - max((common_prefix_length(other.ids_T, example.ids_T) for other in batch), default=0)
        if batch and (distinct + new > TOKENS or len(batch) == MOST):
            yield batch
            batch, distinct, new = [], 0, len(example.ids_T)
        batch.append(example)
        distinct += new
    if batch:
        yield batch


def _backward(model: Any, batch: Sequence[Example], total: float, how: str, world: World) -> float:
    """Add up the gradient of the sum of the weighted losses of `batch` over `total`; return that loss, of all
    processes together."""
    ids, weights = [e.ids_T for e in batch], [e.weight_T for e in batch]
    loss = 0.0
    parts = make_batches(model, ids, [w > 0 for w in weights])
    for part in in_step(model, parts, world):
        weight_S = torch.from_numpy(np.concatenate([weights[i][1:][weights[i][1:] > 0] for i in part.sequences]))
        nll_S = -token_logprobs(model, part, how).logprob_S
        value = (nll_S * weight_S.to(nll_S.device)).sum() / total
        value.backward()
        loss += float(value.detach())
    return world.total(loss)

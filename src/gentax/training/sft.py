"""Supervised learning from episodes: which tokens, with which weight, and the loop.

The agent's tokens count fully. Observations may count too: a small model that starts from nothing learns to copy
names out of what it reads by predicting it. A model that can read already is trained on its own tokens alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gentax.core import Episode, NonFiniteLoss, Step
from gentax.core.memory import freed_memory_kept
from gentax.core.prefix import common
from gentax.policies.codec import ChatCodec
from gentax.policies.reply import write_reply
from gentax.rollouts.prompt import Play, message
from gentax.training.batch import TOKENS, batches, score


@dataclass(frozen=True, slots=True)
class Example:
    """A token sequence and how much each of its tokens counts."""

    ids_T: np.ndarray  # int32
    weight_T: np.ndarray  # float32; 0 for tokens that are only read


def examples(
    episode: Episode,
    codec: ChatCodec,
    play: Play,
    observed: float = 0.0,
    imitate: Callable[[Step], bool] = lambda step: True,
) -> Iterable[Example]:
    """Write an episode as its policy would see it under `play`.

    Args:
        episode: any episode; its steps' actions and thoughts become the agent's words.
        codec: the tokenizer's side.
        play: context, thinking and whether admissible actions are listed (as the episode recorded them).
        observed: weight of the tokens of messages; the agent's own have weight 1.
        imitate: which steps' replies are learned; the others are only read.
    """
    ids: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for n, step in enumerate(episode.steps):
        shown = step.admissible if play.admissible else None
        text, continues = message(play, episode.rules, episode.goal, episode.steps[:n], step.observation, shown)
        if not continues and ids:
            yield Example(np.concatenate(ids), np.concatenate(weights))
            ids, weights = [], []
        asked = codec.following(text, int(ids[-1][-1])) if continues else codec.opening(text)
        said = codec.reply(write_reply(step.action, step.thought if play.thinking else None))
        ids += [asked, said]
        weights += [np.full(len(asked), observed, np.float32), np.full(len(said), float(imitate(step)), np.float32)]
    if ids:
        yield Example(np.concatenate(ids), np.concatenate(weights))


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
    """Train `model` in place on examples drawn from `stream`.

    Raises:
        NonFiniteLoss: the loss stopped being a number; the message says at which step.
    """
    rng = np.random.default_rng(settings.seed)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=settings.lr,
        betas=(0.9, 0.95),
        fused=True,
    )
    began = time.monotonic()
    waiting: list[Example] = []
    step = tokens = 0
    model.train()
    while True:
        spent = time.monotonic() - began
        done = step / settings.steps if settings.seconds is None else spent / settings.seconds
        if done >= 1:
            break
        rate = min(1.0, done / settings.warmup if settings.warmup else 1.0) * (
            0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        )
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * max(rate, 1e-3)
        batch = fill(waiting, lambda: stream(rng))
        loss = _step(model, batch, settings.precision)
        if not math.isfinite(loss):
            raise NonFiniteLoss(f"the loss became {loss} at step {step}")
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        tokens += sum(len(example.ids_T) for example in batch)
        on_step(
            {"step": step, "loss": loss, "grad_norm": float(norm), "tokens": tokens, "done": done, "seconds": spent}
        )
    model.eval()


def fill(waiting: list[Example], draw: Callable[[], Example]) -> list[Example]:
    """Draw examples until the next would overfill a batch; that one waits for the batch after."""
    batch: list[Example] = []
    distinct = 0
    while True:
        example = waiting.pop() if waiting else draw()
        new = len(example.ids_T) - max((common(other.ids_T, example.ids_T) for other in batch), default=0)
        if batch and distinct + new > TOKENS:
            waiting.append(example)
            return batch
        batch.append(example)
        distinct += new


def _step(model: Any, batch: Sequence[Example], how: str) -> float:
    """Accumulate the gradient of the weighted mean loss of `batch`; return that loss."""
    ids, weights = [e.ids_T for e in batch], [e.weight_T for e in batch]
    total = float(sum(w[1:].sum() for w in weights))
    loss = 0.0
    for part in batches(ids, [w > 0 for w in weights]):
        weight_S = torch.from_numpy(np.concatenate([weights[i][1:][weights[i][1:] > 0] for i in part.members]))
        nll_UV = -torch.log_softmax(score(model, part, how), dim=-1)
        nll_S = nll_UV[part.guess_S.to(model.device), part.token_S.to(model.device)]
        value = (nll_S * weight_S.to(model.device)).sum() / total
        value.backward()
        loss += float(value.detach())
    return loss

"""What a run will hold in memory, computed from a model's configuration before any weight is loaded.

Counted: the player's weights, what is trained with gradients and moments, reference models (all three exact), what
layers keep for the backward pass (estimated from the widths of their matrices, `KEPT`), logits, and the cache of
playing, for rows of `PLAYED` tokens. Playing and learning take turns, so the larger of the two counts; fewer rows are
played at a time where memory is short. PyTorch itself takes half a GB more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from gentax.core import UsageError
from gentax.models.device import autocast_context, kv_cache_bytes
from gentax.models.scoring.batch import MAX_TOKENS
from gentax.models.scoring.logprobs import CHUNK, LARGE_CHUNK
from gentax.training.config import LoraConfig, TrainConfig
from gentax.training.forgetting import forgetting_methods
from gentax.training.learner import adapted_layers

KEPT = 1.5  # numbers that a layer keeps for a token, for each row and column of its matrices: 1.1 to 1.5 were measured
LOGITS = 6  # numbers held for each logit
PLAYED = 1024  # tokens
ROWS = 128  # that are played at once, at most
SHARE = 0.1  # of the memory that is left; where layers would keep more than this, they compute it again
GB = 1e9
CACHE, LEARNING = "cache of playing", ("activations", "logits")  # parts that are not held at the same time


@dataclass(frozen=True)
class Footprint:
    """How a model is trained, and the bytes that takes."""

    parameters: int
    trained: int  # parameters that have gradients
    how: str  # in words
    gradient_checkpointing: bool
    parts: Mapping[str, float]  # bytes, by what they hold
    least_cache: float  # bytes: of the episodes that must be played at once

    @property
    def total(self) -> float:
        """Bytes at the most: what is always held, and what playing or learning takes, whichever is more."""
        return self._with(self.parts.get(CACHE, 0.0))

    @property
    def least(self) -> float:
        """Bytes without which nothing goes: as `total`, where one episode is played at a time unless it is said."""
        return self._with(self.least_cache)

    def _with(self, playing: float) -> float:
        learning = sum(self.parts.get(what, 0.0) for what in LEARNING)
        held = sum(size for what, size in self.parts.items() if what not in (CACHE, *LEARNING))
        return held + max(playing, learning)

    def __str__(self) -> str:
        again = ", gradient checkpointing" if self.gradient_checkpointing else ""
        return f"{millions(self.parameters)} parameters, {self.how}{again}; about {self.total / GB:.1f} GB"

    def held(self) -> str:
        """Return the bytes of each part, largest first."""
        rows = sorted(self.parts.items(), key=lambda row: -row[1])
        return ", ".join(f"{what} {size / GB:.1f}" for what, size in rows if size >= 0.05 * GB)


def parameters_of(model: Any) -> int:
    """Return the number of a model's parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters())


def footprint(model: Any, config: TrainConfig, device: torch.device, left: float, processes: int = 1) -> Footprint:
    """Return what training `model` by a recipe takes in each process.

    Args:
        model: without weights (see `load_meta_model`).
        config: every setting.
        device: where it will be.
        left: bytes that the device has.
        processes: how many train together.
    """
    numbers, size = parameters_of(model), model.dtype.itemsize
    spread = processes if config.shard else 1
    parts: dict[str, float] = {"weights": numbers * size}
    copy = numbers * size  # of another model that is not trained
    rounded = f", played in {_named(model.dtype)}" if size < 4 else ""
    if config.lora is not None:
        layers = [model.get_submodule(name) for name in adapted_layers(model)]
        trained = sum(config.lora.r * sum(layer.weight.shape) for layer in layers)
        copied = numbers if spread > 1 else sum(layer.weight.numel() for layer in layers)
        parts["frozen copy"] = copied * size / spread
        parts["adapters, gradients, Adam"] = 16.0 * trained
        how = f"{_named(model.dtype)}; LoRA rank {config.lora.r}: {millions(trained)} trained in fp32{rounded}"
        copy = copy if config.sft is not None or spread > 1 else 0
    else:
        trained = numbers
        if spread > 1 or model.dtype is not torch.float32:
            parts["fp32 masters, gradients, Adam"] = 16 * numbers / spread
            how = f"{_named(model.dtype)}; masters and Adam in fp32{rounded}"
        else:
            parts["gradients, Adam"] = 12 * numbers
            how = "weights and Adam in fp32"
    starts = {method.start_at for method in forgetting_methods(config) if method.keeps_start_model}
    if config.algorithm.beta:
        starts.add("rl")
    if starts:  # fine-tuning makes two of them
        parts["reference"] = copy * (len(starts) if config.sft is not None else 1)
    low = isinstance(autocast_context(config.precision, device), torch.autocast) or size == 2
    whole, again = (
        MAX_TOKENS * (2 if low else 4) * numbers_per_token for numbers_per_token in _activations_per_token(model)
    )
    checkpointing = whole > SHARE * left
    parts["activations"] = again if checkpointing else whole
    text_config = model.config.get_text_config()
    parts["logits"] = 4.0 * LOGITS * min(CHUNK.get(device.type, LARGE_CHUNK), MAX_TOKENS * text_config.vocab_size)
    rows = min(config.parallel or ROWS, -(-config.tasks_per_step // processes) * config.num_generations)
    row = kv_cache_bytes(text_config, PLAYED, model.dtype)
    parts[CACHE] = rows * row
    parts = {what: part for what, part in parts.items() if part}
    return Footprint(numbers, trained, how, checkpointing, parts, row * min(rows, config.parallel or 1))


def check_memory(model: Any, config: TrainConfig, device: torch.device, left: float, processes: int = 1) -> Footprint:
    """Return what a run will hold (see `footprint`). Raises UsageError, with the numbers, where that is too much."""
    need = footprint(model, config, device, left, processes)
    if need.least <= left:
        return need
    ways = []
    if config.lora is None:
        less = footprint(model, replace(config, lora=LoraConfig()), device, left, processes)
        ways.append(f"-s lora.r=16 takes about {less.least / GB:.1f} GB")
    if not config.shard:
        ways.append("shard: true spreads it over several processes")
    raise UsageError(
        f"training {config.model} takes about {need.least / GB:.1f} GB ({need.held()}), and {device} has "
        f"{left / GB:.1f} GB left; {'; '.join(ways) or 'a smaller model or a larger device would do'}"
    )


def millions(count: int) -> str:
    """Write a number of parameters."""
    return f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.3g} M"


def _named(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}.get(dtype, str(dtype))


def _activations_per_token(model: Any) -> tuple[float, float]:
    """Return the numbers kept for a token of a batch: by all layers, and where they are computed again."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    hidden = model.get_input_embeddings().weight.shape[1]
    layers = [part for part in model.get_decoder().modules() if isinstance(part, GradientCheckpointingLayer)]
    text_config = model.config.get_text_config()
    chosen = getattr(text_config, "num_experts_per_tok", None) or 1
    each = []
    for layer in layers:
        # An expert's matrices are read by its share of the tokens: all experts together by `chosen` of them.
        shapes = [(chosen if p.ndim == 3 else 1, p.shape[-2:]) for p in layer.parameters() if p.ndim > 1]
        each.append(KEPT * sum(times * sum(shape) for times, shape in shapes))
    if not each:
        return (whole := KEPT * sum(sum(p.shape) for p in model.parameters() if p.ndim > 1)), whole
    return sum(each), max(each) + len(layers) * hidden * 2

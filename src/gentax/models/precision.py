"""Precision: autocast for training, fp32 computation of 16-bit weights, and stochastic rounding to them.

bf16 numbers around 0.02 are 1.2e-4 apart, while an RL step moves a weight by about the learning rate, 1e-6. Rounded to
nearest, a policy would not change for dozens of steps, and much of a merged adapter would be lost. Weights are
therefore rounded up or down with probability by distance (stochastic rounding, arXiv 1502.02551), which is right on
average. The random numbers depend on the weight's name alone, so the result is the same in every process and in a
resumed run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch

from gentax.core import stable_seed, unknown
from gentax.models.options import PRECISIONS


def autocast_context(choice: str, device: Any) -> AbstractContextManager[Any]:
    """Return the context in which a forward pass runs. Weights, gradients and optimizer keep their own dtype.

    Args:
        choice: `bf16` (autocast), `fp32`, or `auto`: bf16 where the hardware multiplies it natively (half the time of a
            step on a CPU with AVX512-BF16 or AMX, several times the time on one without).
        device: of the model.
    """
    if choice not in PRECISIONS:
        raise unknown("precision", choice, PRECISIONS)
    kind = torch.device(device).type
    if choice == "fp32" or (choice == "auto" and not has_native_bf16(kind)):
        return nullcontext()
    return torch.autocast(kind, dtype=torch.bfloat16)


@contextmanager
def upcast_to_fp32(model: Any) -> Iterator[None]:
    """Compute `model` in fp32 meanwhile, whatever dtype its weights are stored in, without gradient.

    16-bit weights are widened: outside the layers for the whole time, in a layer only while it runs. This takes the
    memory of embeddings, head and one layer, not of a second model.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    inside = {id(x) for layer in layers for x in chain(layer.parameters(), layer.buffers())}
    stored: dict[Any, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def widen(owner: Any, tensors: Iterable[torch.Tensor]) -> None:
        narrow = [x for x in tensors if x.is_floating_point() and x.itemsize == 2]
        stored[owner] = [(x, x.data) for x in narrow]
        for x in narrow:
            x.data = x.data.float()

    def restore(owner: Any) -> None:
        for x, data in stored.pop(owner, ()):
            x.data = data

    def before(layer: Any, _: Any) -> None:
        widen(layer, chain(layer.parameters(), layer.buffers()))

    def after(layer: Any, *_: Any) -> None:
        restore(layer)

    hooks = [layer.register_forward_pre_hook(before) for layer in layers]
    hooks += [layer.register_forward_hook(after, always_call=True) for layer in layers]
    try:
        widen(model, (x for x in chain(model.parameters(), model.buffers()) if id(x) not in inside))
        with torch.no_grad():
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for owner in list(stored):
            restore(owner)


def has_native_bf16(kind: str) -> bool:
    """Return whether this device type multiplies bf16 in hardware."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        return any(flag in _flags() for flag in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def _flags() -> tuple[str, ...]:
    """Return the CPU's features as Linux names them; none elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            line = next((line for line in file if line.lower().startswith(("flags", "features"))), "")
    except OSError:
        return ()
    return tuple(line.partition(":")[2].split())


CHUNK_NUMEL = 1 << 24  # numbers rounded at a time, to bound the memory
FRACTION = 23  # bits of the fraction in fp32


@torch.no_grad()
def stochastic_round_(target: torch.Tensor, exact: torch.Tensor, name: str) -> None:
    """Copy `exact`, fp32, into `target`, rounded stochastically to its dtype.

    Args:
        target: written in place; an exact copy where it is fp32.
        exact: of the same shape, on the same device.
        name: of the weight, which seeds the random numbers.
    """
    if target.dtype is torch.float32:
        target.copy_(exact)
        return
    lost = FRACTION + round(math.log2(torch.finfo(target.dtype).eps))  # bits of the fraction that the target lacks
    chance = torch.Generator(exact.device).manual_seed(stable_seed("rounding", name) % (1 << 63))
    rows = max(1, CHUNK_NUMEL * len(exact) // max(1, exact.numel()))
    for rounded, part in zip(target.split(rows), exact.split(rows), strict=True):
        bits = torch.empty(part.shape, dtype=torch.int32, device=part.device).random_(1 << lost, generator=chance)
        # Carries into the kept bits in proportion to the dropped ones; floats are ordered like their bits.
        bits += part.contiguous().view(torch.int32)
        rounded.copy_(bits.bitwise_and_(-(1 << lost)).view(torch.float32))

"""Which number format the arithmetic of learning uses. Weights, gradients and the optimiser stay in their own.

fp32 weights written into a model of fewer digits, without losing what was learned.

bf16 numbers around 0.02 are 1.2e-4 apart, and a step of RL moves a weight by about the learning rate, 1e-6. Rounded to
the nearest number a policy would stay what it was for dozens of steps, and much of what a merged adapter adds would not
reach it. So weights are rounded up or down by chance, in proportion to how near each number is
(stochastic rounding, arXiv 1502.02551): every weight is right on average, and a layer's output sums over many.

The chances are the same each time. The result follows from the exact weights alone: it is the same in every process and
in a continued run, and what needs no rounding stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch

from gentax.core import stable_seed, unknown
from gentax.models.requests import PRECISIONS


def autocast_context(choice: str, device: Any) -> AbstractContextManager[Any]:
    """Return the context in which a forward pass runs.

    Args:
        choice: `bf16` (autocast), `fp32`, or `auto`: bf16 where the hardware multiplies it natively (half the time
            of a step on a CPU with AVX512-BF16 or AMX, several times the time on one without).
        device: where the model is.
    """
    if choice not in PRECISIONS:
        raise unknown("precision", choice, PRECISIONS)
    kind = torch.device(device).type
    if choice == "fp32" or (choice == "auto" and not has_native_bf16(kind)):
        return nullcontext()
    return torch.autocast(kind, dtype=torch.bfloat16)


@contextmanager
def upcast_to_fp32(model: Any) -> Iterator[None]:
    """While this lasts, compute `model` in fp32, whatever its weights are stored in; nothing of it is changed.

    What is stored in 16 bits is widened: outside of the layers for as long as this lasts, in a layer while it runs. So
    it takes the bytes of the embeddings, the head and one layer, and not those of a second model. Without gradient.
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
    """Return whether a device of this kind multiplies bf16 numbers in hardware."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        return any(flag in _flags() for flag in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def _flags() -> tuple[str, ...]:
    """Return the processor's features as Linux names them; none elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            line = next((line for line in file if line.lower().startswith(("flags", "features"))), "")
    except OSError:
        return ()
    return tuple(line.partition(":")[2].split())


CHUNK_NUMEL = 1 << 24  # numbers: what is held beside the weights is small
FRACTION = 23  # bits of it in fp32


@torch.no_grad()
def stochastic_round_(target: torch.Tensor, exact: torch.Tensor, name: str) -> None:
    """Copy `exact`, fp32, into `target`, which has the same shape and any floating-point format.

    Args:
        target: written in place; copied to as it is where it is fp32.
        exact: on the same device.
        name: of the weight; another one has other chances.
    """
    if target.dtype is torch.float32:
        target.copy_(exact)
        return
    lost = FRACTION + round(math.log2(torch.finfo(target.dtype).eps))  # bits of the fraction that the target lacks
    chance = torch.Generator(exact.device).manual_seed(stable_seed("rounding", name) % (1 << 63))
    rows = max(1, CHUNK_NUMEL * len(exact) // max(1, exact.numel()))
    for theirs, mine in zip(target.split(rows), exact.split(rows), strict=True):
        bits = torch.empty(mine.shape, dtype=torch.int32, device=mine.device).random_(1 << lost, generator=chance)
        # Carried into the bits that stay as often as those that go are large; floats are ordered like their bits.
        bits += mine.contiguous().view(torch.int32)
        theirs.copy_(bits.bitwise_and_(-(1 << lost)).view(torch.float32))

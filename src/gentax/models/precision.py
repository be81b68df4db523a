"""Which number format the arithmetic of learning uses. Weights, gradients and the optimiser stay in their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch

from gentax.core import unknown
from gentax.models.requests import PRECISIONS


def precision(choice: str, device: Any) -> AbstractContextManager[Any]:
    """Return the context in which a forward pass runs.

    Args:
        choice: `bf16` (autocast), `fp32`, or `auto`: bf16 where the hardware multiplies it natively (half the time
            of a step on a CPU with AVX512-BF16 or AMX, several times the time on one without).
        device: where the model is.
    """
    if choice not in PRECISIONS:
        raise unknown("precision", choice, PRECISIONS)
    kind = torch.device(device).type
    if choice == "fp32" or (choice == "auto" and not native_bf16(kind)):
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


def native_bf16(kind: str) -> bool:
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

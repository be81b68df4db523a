"""Which number format the arithmetic of learning uses. Weights, gradients and the optimiser stay in their own."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
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

"""fp32 weights written into a model of fewer digits, without losing what was learned.

bf16 numbers around 0.02 are 1.2e-4 apart, and a step of RL moves a weight by about the learning rate, 1e-6. Rounded to
the nearest number a policy would stay what it was for dozens of steps, and much of what a merged adapter adds would not
reach it. So weights are rounded up or down by chance, in proportion to how near each number is
(stochastic rounding, arXiv 1502.02551): every weight is right on average, and a layer's output sums over many.

The chances are the same each time. The result follows from the exact weights alone: it is the same in every process and
in a continued run, and what needs no rounding stays as it is.
"""

from __future__ import annotations

import math

import torch

from gentax.core import stable_seed

AT_ONCE = 1 << 24  # numbers: what is held beside the weights is small
FRACTION = 23  # bits of it in fp32


@torch.no_grad()
def write_rounded(target: torch.Tensor, exact: torch.Tensor, name: str) -> None:
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
    rows = max(1, AT_ONCE * len(exact) // max(1, exact.numel()))
    for theirs, mine in zip(target.split(rows), exact.split(rows), strict=True):
        bits = torch.empty(mine.shape, dtype=torch.int32, device=mine.device).random_(1 << lost, generator=chance)
        # Carried into the bits that stay as often as those that go are large; floats are ordered like their bits.
        bits += mine.contiguous().view(torch.int32)
        theirs.copy_(bits.bitwise_and_(-(1 << lost)).view(torch.float32))

"""Weights between the start's and the trained ones (WiSE-FT, arXiv 2109.01903): less of what was learned, and less of
what was forgotten; and which of them to keep, chosen without a look at any other domain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from gentax.core import UsageError
from gentax.training.forgetting.weights import Weights, combine

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def interpolate(start: Weights, tuned: Weights, share: float, name: str = "the policy") -> dict[str, torch.Tensor]:
    """Return start + share × (tuned − start), computed in fp32 and in the start's formats; exact at 0 and at 1.

    Args:
        start: weights by name. Names that share memory are one weight.
        tuned: weights like it.
        share: 0 for the start's, 1 for the tuned ones.
        name: how messages call the tuned ones.

    Raises:
        UsageError: a share out of range, or weights that are not like the start's.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"the share of the trained weights must be from 0 to 1, not {share}")
    return combine(start, [tuned], lambda a, b: {key: torch.lerp(a[key], b[0][key], share) for key in a}, [name])


def nearest_that_keeps(
    success_at: Callable[[float], float], keep: float, shares: Sequence[float] = SHARES
) -> tuple[float, list[dict[str, float]]]:
    """Find the weights nearest to the start that keep a part of what training gained.

    Success is measured on few tasks and need not rise evenly, so nothing is bisected: after both ends, shares are
    tried from small to large, and the first that keeps enough is taken. What is left of luck in the tasks favours
    small shares a little.

    Args:
        success_at: plays validation tasks with the weights at a share, the same tasks with the same random numbers
            each time; returns their success, 0 to 1.
        keep: the part of the gain to keep, 0 to 1; at 0 it is the first of `shares` that is no worse than the start.
        shares: what to try between 0 and 1, rising.

    Returns:
        The share, and a row {share, success} for each that was played, rising. The share is 0.0 when training gained
        nothing on these tasks: the start's weights are as good there, and have forgotten nothing.
    """
    played = {share: success_at(share) for share in (0.0, 1.0)}
    gain = played[1.0] - played[0.0]
    chosen = 1.0 if gain > 0 else 0.0
    for share in shares if gain > 0 else ():
        if share not in played:
            played[share] = success_at(share)
        if played[share] >= played[0.0] + keep * gain - 1e-9:
            chosen = share
            break
    return chosen, [{"share": share, "success": played[share]} for share in sorted(played)]

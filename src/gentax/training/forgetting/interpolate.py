"""Interpolation between the weights before and after training (WiSE-FT, arXiv 2109.01903).

It gives up a part of what was learned to undo a part of what was forgotten. How far to go is chosen by success on
validation tasks of what was trained on; no other domain is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from gentax.core import UsageError
from gentax.models.device import stochastic_round_
from gentax.training.forgetting import ForgettingMethod

Weights = Mapping[str, torch.Tensor]

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Interpolate(ForgettingMethod):
    """Ends the run with the weights nearest to the start that keep `forgetting.interpolate` of the gain."""

    result = "interpolated"

    def finalize(
        self, start: Weights, trained: Weights, success_of: Callable[[Weights], float]
    ) -> tuple[Weights, dict[str, Any]]:
        keep = self.config.forgetting.interpolate
        assert keep is not None  # otherwise this method is not made
        share, tried = nearest_that_keeps(lambda share: success_of(interpolate(start, trained, share)), keep)
        return interpolate(start, trained, share), {"share": share, "tried": tried}


def nearest_that_keeps(
    success_at: Callable[[float], float], keep: float, shares: Sequence[float] = SHARES
) -> tuple[float, list[dict[str, float]]]:
    """Find the smallest share of the trained weights that keeps a part of what training gained.

    Success is measured on few tasks and need not rise evenly, so this is no bisection: after both ends, shares are
    tried from small to large. Noise in the success favours small shares a little.

    Args:
        success_at: plays validation tasks with the weights at a share, always the same; returns their success, 0 to 1.
        keep: the part of the gain to keep, 0 to 1.
        shares: what to try between 0 and 1, rising.

    Returns:
        The share, 0.0 where training gained nothing on these tasks; and a row {share, success} for each that was
        played, rising.
    """
    success = {share: success_at(share) for share in (0.0, 1.0)}
    gain = success[1.0] - success[0.0]
    chosen = 1.0 if gain > 0 else 0.0
    for share in shares if gain > 0 else ():
        if share not in success:
            success[share] = success_at(share)
        if success[share] >= success[0.0] + keep * gain - 1e-9:
            chosen = share
            break
    return chosen, [{"share": share, "success": success[share]} for share in sorted(success)]


def interpolate(start: Weights, tuned: Weights, share: float, name: str = "the policy") -> dict[str, torch.Tensor]:
    """Return start + share × (tuned − start); exact at 0 and at 1. See `combine`.

    Raises:
        UsageError: a share out of range, or weights that are not like the start's.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"the share of the trained weights must be from 0 to 1, not {share}")
    return combine(start, [tuned], lambda a, b: torch.lerp(a, b, share), [name])


def combine(
    start: Weights,
    tuned: Sequence[Weights],
    rule: Callable[..., torch.Tensor],
    names: Sequence[str] = (),
) -> dict[str, torch.Tensor]:
    """Combine weights one by one; return them under the start's names and in its number formats.

    Two names for one tensor (tied embeddings) are combined once and stay tied. Integers, such as position tables, are
    the start's.

    Args:
        start: weights by name.
        tuned: weights of policies trained from it.
        rule: returns a weight from the start's and the tuned ones (`rule(start, *tuned)`), all in fp32.
        names: of the tuned ones, for error messages; "policy 1" and so on when empty.

    Raises:
        UsageError: names, shapes, integers or ties that are not the start's.
    """
    names = names or [f"policy {n}" for n in range(1, len(tuned) + 1)]
    first_name: dict[tuple[int, torch.Size], str] = {}
    same_as = {
        name: first_name.setdefault((x.data_ptr(), x.shape), name) if x.numel() else name for name, x in start.items()
    }
    for label, weights in zip(names, tuned, strict=True):
        _check(start, weights, same_as, label)
    result: dict[str, Any] = {}
    for name, weight in start.items():
        if same_as[name] != name or not weight.is_floating_point():
            result[name] = result.get(same_as[name], weight)
            continue
        exact = rule(*(weights[name].detach().to(weight.device, torch.float32) for weights in (start, *tuned)))
        result[name] = torch.empty_like(weight)
        stochastic_round_(result[name], exact, name)
    return result


def _check(start: Weights, weights: Weights, same_as: Mapping[str, str], label: str) -> None:
    """Raise UsageError at the first weight that is not like the start's."""
    for name, weight in start.items():
        if name not in weights:
            raise UsageError(f"{label} has no {name}, which the start has: it was not trained from there")
        tuned = weights[name]
        if tuned.shape != weight.shape:
            shapes = ["x".join(map(str, x.shape)) or "one number" for x in (tuned, weight)]
            raise UsageError(f"{name} of {label} is {shapes[0]}, and the start's is {shapes[1]}")
        if not weight.is_floating_point() and not torch.equal(tuned.to(weight), weight):
            raise UsageError(f"{name} of {label} is not the start's, and whole numbers cannot be merged")
        if same_as[name] != name and not torch.equal(tuned, weights[same_as[name]]):
            raise UsageError(f"{same_as[name]} and {name} are one weight in the start and two in {label}")
    if extra := next((name for name in weights if name not in start), None):
        raise UsageError(f"{label} has {extra}, which the start does not have: it was not trained from there")

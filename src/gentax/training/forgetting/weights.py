"""Weights by name, as arithmetic between models needs them: checked to be alike, in fp32, each held once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from gentax.core import UsageError
from gentax.models.precision import stochastic_round_

Weights = Mapping[str, torch.Tensor]


def combine(
    start: Weights,
    tuned: Sequence[Weights],
    rule: Callable[[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]], Weights],
    names: Sequence[str] = (),
) -> dict[str, torch.Tensor]:
    """Return what `rule` makes of weights, under the start's names and in its number formats.

    Two names for one tensor (tied embeddings) are one weight to the rule and stay tied. Integers, such as position
    tables, are the start's.

    Args:
        start: weights by name.
        tuned: weights of policies trained from it.
        rule: makes weights of the start's and the tuned ones, all in fp32.
        names: how messages call the tuned ones; "policy 1" and so on when empty.

    Raises:
        UsageError: no weights at all, or names, shapes, integers or ties that are not the start's.
    """
    if not tuned:
        raise UsageError("there are no tuned weights to work on")
    names = names or [f"policy {n}" for n in range(1, len(tuned) + 1)]
    first_name: dict[tuple[int, torch.Size], str] = {}
    same_as = {
        name: first_name.setdefault((x.data_ptr(), x.shape), name) if x.numel() else name for name, x in start.items()
    }
    for called, weights in zip(names, tuned, strict=True):
        _check(start, weights, same_as, called)
    free = [name for name, x in start.items() if same_as[name] == name and x.is_floating_point()]
    made = rule(_fp32(start, free, start), [_fp32(weights, free, start) for weights in tuned])
    whole = {name: _rounded(made[name], start[name], name) if name in made else start[name] for name in start}
    return {name: whole[same_as[name]] for name in start}


def _fp32(weights: Weights, names: Sequence[str], like: Weights) -> dict[str, torch.Tensor]:
    return {name: weights[name].detach().to(like[name].device, torch.float32) for name in names}


def _rounded(exact: torch.Tensor, like: torch.Tensor, name: str) -> torch.Tensor:
    stored = torch.empty_like(like)
    stochastic_round_(stored, exact, name)
    return stored


def _check(start: Weights, weights: Weights, same_as: Mapping[str, str], called: str) -> None:
    """Raise UsageError at the first weight that is not like the start's."""
    for name, mine in start.items():
        if name not in weights:
            raise UsageError(f"{called} has no {name}, which the start has: it was not trained from there")
        theirs = weights[name]
        if theirs.shape != mine.shape:
            shapes = ["x".join(map(str, x.shape)) or "one number" for x in (theirs, mine)]
            raise UsageError(f"{name} of {called} is {shapes[0]}, and the start's is {shapes[1]}")
        if not mine.is_floating_point() and not torch.equal(theirs.to(mine), mine):
            raise UsageError(f"{name} of {called} is not the start's, and whole numbers cannot be merged")
        if same_as[name] != name and not torch.equal(theirs, weights[same_as[name]]):
            raise UsageError(f"{same_as[name]} and {name} are one weight in the start and two in {called}")
    for name in weights:
        if name not in start:
            raise UsageError(f"{called} has {name}, which the start does not have: it was not trained from there")

"""Weights of a mixture, `{domain or domain:level: weight}`: what they may be, and the shares they stand for."""

from __future__ import annotations

from collections.abc import Mapping

from gentax.core import UsageError


def check_mix(mix: Mapping[str, float], what: str, verb: str) -> None:
    """Refuse weights below 0 or infinite, and a mixture whose weights sum to 0.

    Args:
        mix: the weights.
        what: how messages call the mixture.
        verb: what would be done to nothing with weights of 0, such as "trained on".
    """
    for name, weight in mix.items():
        if not 0 <= weight < float("inf"):
            raise UsageError(f"recipe: the weight of {name} must be a number of at least 0 in {what}, not {weight}")
    if not sum(mix.values()) > 0:
        raise UsageError(f"recipe: the weights of {what} sum to 0; nothing would be {verb}")


def shares(mix: Mapping[str, float]) -> dict[str, float]:
    """Return the weights over their sum, without those of 0."""
    total = sum(mix.values())
    return {name: weight / total for name, weight in mix.items() if weight > 0}

"""When many things are looked at, one of them looks real by chance: the correction for that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from gentax.core.errors import UsageError

Key = TypeVar("Key")


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Return p-values adjusted so that the chance of any false finding among them stays at its level (Holm 1979).

    The smallest is multiplied with their number, the next with one less, and so on, none falling below one before it.
    Holds however the tests depend on each other.

    Raises:
        UsageError: a p-value that is NaN or outside [0, 1].
    """
    for key, p in p_values.items():
        if not 0 <= p <= 1:
            raise UsageError(f"the p-value of {key} must lie in [0, 1], not {p}")
    order = sorted(p_values, key=lambda key: p_values[key])
    factors = range(len(order), 0, -1)
    adjusted = np.maximum.accumulate([min(1.0, k * p_values[key]) for key, k in zip(order, factors, strict=True)])
    found = dict(zip(order, map(float, adjusted), strict=True))
    return {key: found[key] for key in p_values}

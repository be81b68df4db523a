"""What two token sequences begin with alike: playing caches it, learning computes it once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def common(a: np.ndarray, b: np.ndarray) -> int:
    """Return the length of the longest common beginning."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def side_by_side(sequences: Sequence[np.ndarray]) -> list[int]:
    """Return the order of token sequences in which those that begin alike are neighbours."""
    return sorted(range(len(sequences)), key=lambda i: sequences[i].astype(">i4").tobytes())

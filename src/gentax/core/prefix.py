"""What two token sequences begin with alike: playing caches it, learning computes it once."""

from __future__ import annotations

import numpy as np


def common(a: np.ndarray, b: np.ndarray) -> int:
    """Return the length of the longest common beginning."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n

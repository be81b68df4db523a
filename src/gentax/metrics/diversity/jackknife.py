"""An interval for what is worked out from the tasks of two domains: leave out one task at a time and look."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from gentax.metrics.statistics import LEVEL, TASKS, Estimate


def fraction(value: float, without_A: np.ndarray, without_B: np.ndarray) -> Estimate:
    """Return `value`, which lies in [0, 1], with the jackknife's interval over tasks.

    The variance is the sum over both domains of (K - 1) / K Σ (θᵢ - mean θ)² (Efron & Stein 1981), since their tasks
    are drawn apart; Student's t has the degrees of freedom of the domain with fewer tasks.

    Args:
        value: from all tasks.
        without_A: the same without each task of the one domain, (K_A,), K_A at least 2.
        without_B: likewise of the other, (K_B,).
    """
    parts = [(len(theta) - 1) / len(theta) * ((theta - theta.mean()) ** 2).sum() for theta in (without_A, without_B)]
    fewest = min(len(without_A), len(without_B))
    half = float(stdtrit(fewest - 1, 0.5 + LEVEL / 2) * np.sqrt(sum(parts)))
    tasks = len(without_A) + len(without_B)
    return Estimate(value, max(value - half, 0.0), min(value + half, 1.0), TASKS, "fraction", tasks)

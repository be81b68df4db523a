"""Several samples a task: whether any of k succeeds (pass@k), and how many do (avg@k).

The two together tell a policy that solves a few tasks always from one that solves every task now and then. RL often
raises the second at the cost of the first.
"""

from __future__ import annotations

import numpy as np

from gentax.core import UsageError
from gentax.metrics.statistics import Estimate, success_rate
from gentax.metrics.statistics.scores import check


def pass_at_k(scores_NK: np.ndarray, k: int) -> Estimate:
    """Estimate the share of tasks, percent, that at least one of `k` samples solves. The interval covers tasks.

    Unbiased for any n >= k samples of each task: the mean over tasks of 1 - C(n - c, k) / C(n, k), with c of the n
    samples solved (Chen et al. 2021, arXiv 2107.03374, eq. 1).

    Args:
        scores_NK: 1 where a sample solved its task and 0 where not, (N,) samples by (K,) tasks.
        k: samples, from 1 to N.

    Raises:
        UsageError: `k` outside 1 to N, scores other than 0 and 1, fewer than 2 tasks.
    """
    scores_NK = check(np.asarray(scores_NK, float), "pass@k")
    n = len(scores_NK)
    if not 1 <= k <= n:
        raise UsageError(f"pass@k of {n} samples a task is for k from 1 to {n}, not {k}")
    if not np.isin(scores_NK, (0.0, 1.0)).all():
        raise UsageError("pass@k needs one score of 0 or 1 for each sample, not means")
    failed_K = n - scores_NK.sum(0)
    # C(f, k) / C(n, k) as a product of k ratios: binomials themselves overflow.
    ratios_kK = [np.maximum(failed_K - i, 0) / (n - i) for i in range(k)]
    return success_rate(1 - np.prod(ratios_kK, axis=0))


def avg_at_k(scores_NK: np.ndarray) -> Estimate:
    """Estimate the mean success of a sample, percent, from all N samples of each task: avg@N. It covers tasks.

    What is expected of it does not depend on how many samples there are, so none is left out for a smaller k.

    Raises:
        UsageError: scores outside 0 to 1, fewer than 2 tasks.
    """
    return success_rate(check(np.asarray(scores_NK, float), "avg@k").mean(0))


def steps_of_k(n: int) -> list[int]:
    """Return the k that are worth printing of n samples: 1, 2, 4, … and n itself.

    >>> steps_of_k(6)
    [1, 2, 4, 6]
    """
    return sorted({n, *(1 << bit for bit in range(n.bit_length()) if 1 << bit <= n)})

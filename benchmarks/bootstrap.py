"""The bootstrap beside rliable: the same interquartile mean and probability of improvement, and the time they take.

    pip install rliable "pandas<3"
    python benchmarks/bootstrap.py [--repeats 5]

The arrays are made up: 5 training runs of two arms on 8 domains of 512 tasks each. rliable knows runs and domains only,
so both get the success rates of the runs, (5, 8). The difference of two intervals of the same data and another seed,
for each side with itself, is what chance alone makes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from gentax.metrics.statistics import Estimate, iqm, probability_of_improvement

REPLICATES = 10_000
SEEDS, DOMAINS, TASKS = 5, 8, 512


def made_up() -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of two arms, (S, D, K)."""
    rng = np.random.default_rng(20260121)
    rate_D = rng.uniform(0.15, 0.6, DOMAINS)
    arms = []
    for better in (0.0, 0.03):
        rate_SD = np.clip(rate_D + better + 0.04 * rng.standard_normal((SEEDS, DOMAINS)), 0, 1)
        arms.append((rng.random((SEEDS, DOMAINS, TASKS)) < rate_SD[..., None]).astype(float))
    return arms[0], arms[1]


def timed(do: Callable[[int], object], repeats: int) -> float:
    """Return the median seconds of `do`, given the number of the repeat."""
    seconds = []
    for n in range(repeats):
        began = time.perf_counter()
        do(n)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def row(name: str, value: float, low: float, high: float, seconds: float | None = None) -> None:
    took = "" if seconds is None else f"{seconds:9.2f}"
    print(f"  {name:34}{value:9.3f}{low:9.3f}{high:9.3f}{took}")


def ours(name: str, found: Estimate, seconds: float | None = None) -> None:
    row(name, found.value, found.low, found.high, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    plain, arm = made_up()
    plain_SD, arm_SD = plain.mean(2), arm.mean(2)
    head = f"  {'':34}{'value':>9}{'low':>9}{'high':>9}{'seconds':>9}"

    print(f"{REPLICATES} replicates, 5 seeds x 8 domains; medians of {args.repeats}\n\nInterquartile mean, %\n{head}")
    for seed in (0, 1):
        took = timed(lambda n: iqm(arm_SD, np.random.default_rng(n), REPLICATES), args.repeats)
        ours(f"gentax, runs, seed {seed}", iqm(arm_SD, np.random.default_rng(seed), REPLICATES), took)
    try:
        from rliable import library, metrics
    except ImportError:
        print('  rliable is not here: pip install rliable "pandas<3"')
        library = None
    if library is not None:
        for seed in (0, 1):
            state = np.random.RandomState(seed)
            began = time.perf_counter()
            values, limits = library.get_interval_estimates(
                {"arm": arm_SD}, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=REPLICATES, random_state=state
            )
            took = time.perf_counter() - began
            row(f"rliable, runs, seed {seed}", *(100 * x for x in (values["arm"][0], *limits["arm"][:, 0])), took)

    print(f"\nProbability of improvement\n{head}")
    for seed in (0, 1):
        ours(
            f"gentax, runs, seed {seed}",
            probability_of_improvement(arm_SD, plain_SD, np.random.default_rng(seed), REPLICATES),
        )
    if library is not None:
        for seed in (0, 1):
            state = np.random.RandomState(seed)
            began = time.perf_counter()
            values, limits = library.get_interval_estimates(
                {"pair": (arm_SD, plain_SD)},
                lambda x, y: np.array([metrics.probability_of_improvement(x, y)]),
                reps=REPLICATES // 5,  # it takes a test of SciPy's for each domain and replicate
                random_state=state,
            )
            took = time.perf_counter() - began
            row(f"rliable, {REPLICATES // 5} replicates, seed {seed}", values["pair"][0], *limits["pair"][:, 0], took)


if __name__ == "__main__":
    main()

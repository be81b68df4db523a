"""Crafting: steps and resets a second in one process.

    python benchmarks/crafting_speed.py

Plays the expert's plan or, in every other episode, admissible actions drawn at random; actions are written down
beforehand, so that only `reset` and `step` are timed. Every reset makes another task. The time of resets is not
counted in steps a second. Takes about 10 s.
"""

from __future__ import annotations

import random
import statistics
import time

import gentax

LEVELS = (("depth2-read0", 2000), ("depth4-read0", 600), ("depth2-read16", 600))
REPEATS = 5


def actions(env, index: int, rng: random.Random) -> list[str]:
    """Play one episode and return what was done."""
    env.reset(options={"index": index})
    done: list[str] = []
    while True:
        done.append(rng.choice(env.admissible()) if index % 2 else env.expert().action)
        _, _, terminated, truncated, _ = env.step(done[-1])
        if terminated or truncated:
            return done


def measure(level: str, resets: int) -> tuple[float, float]:
    """Return the medians over repeats of steps a second and of resets a second."""
    env, rng = gentax.make("crafting", level=level), random.Random(0)
    stepping, resetting = [], []
    for repeat in range(REPEATS):
        indices = range(repeat * resets, (repeat + 1) * resets)
        plans = [actions(env, index, rng) for index in indices]
        in_resets = in_steps = 0.0
        for index, plan in zip(indices, plans, strict=True):
            start = time.perf_counter()
            env.reset(options={"index": index})
            middle = time.perf_counter()
            for action in plan:
                env.step(action)
            in_steps += time.perf_counter() - middle
            in_resets += middle - start
        stepping.append(sum(map(len, plans)) / in_steps)
        resetting.append(resets / in_resets)
    return statistics.median(stepping), statistics.median(resetting)


def main() -> None:
    for level, resets in LEVELS:
        steps, starts = measure(level, resets)
        print(f"{'gentax crafting ' + level:<34}{steps:>12,.0f} steps/s{starts:>12,.0f} resets/s", flush=True)


if __name__ == "__main__":
    main()

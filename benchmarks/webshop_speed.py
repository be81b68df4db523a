"""WebShop: seconds to open the shop, then steps and resets a second in one process.

    python benchmarks/webshop_speed.py

Opening makes the catalogue and its search index, once in a process. Then the expert's plan is played or, in every other
episode, admissible actions drawn at random; actions are written down beforehand and earlier answers to searches are
forgotten. A reset plays the expert on each goal that it tries, and the episode then finds that search remembered:
"steps/s" are without the time of resets, "all told" with it, every search included. Takes about 30 s, most of it for
the largest shop.
"""

from __future__ import annotations

import random
import statistics
import time

import gentax

LEVELS = (("4k-easy", 200), ("10k-medium", 200), ("10k-hard-long", 200), ("100k-hard-long", 20))
REPEATS = 3


def actions(env, index: int, rng: random.Random) -> list[str]:
    """Play one episode and return what was done."""
    env.reset(options={"index": index})
    done: list[str] = []
    while True:
        done.append(rng.choice(env.admissible()) if index % 2 else env.expert().action)
        _, _, terminated, truncated, _ = env.step(done[-1])
        if terminated or truncated:
            return done


def measure(level: str, resets: int) -> tuple[float, float, float, float]:
    """Return the seconds of opening, and the medians of steps a second, resets a second and steps a second all told."""
    env, rng = gentax.make("webshop", level=level), random.Random(0)
    start = time.perf_counter()
    env.reset(options={"index": 0})
    opening = time.perf_counter() - start
    stepping, resetting, both = [], [], []
    for repeat in range(REPEATS):
        indices = range(repeat * resets, (repeat + 1) * resets)
        plans = [actions(env, index, rng) for index in indices]
        in_resets = in_steps = 0.0
        for index, plan in zip(indices, plans, strict=True):
            env.session.catalogue.index.search.cache_clear()
            start = time.perf_counter()
            env.reset(options={"index": index})
            middle = time.perf_counter()
            for action in plan:
                env.step(action)
            in_steps += time.perf_counter() - middle
            in_resets += middle - start
        steps = sum(map(len, plans))
        stepping.append(steps / in_steps)
        resetting.append(resets / in_resets)
        both.append(steps / (in_steps + in_resets))
    return opening, *map(statistics.median, (stepping, resetting, both))


def main() -> None:
    for level, resets in LEVELS:
        opening, steps, starts, both = measure(level, resets)
        print(
            f"{'gentax webshop ' + level:<30}opens in {opening:>5.1f} s{steps:>10,.0f} steps/s{starts:>10,.0f} resets/s"
            f"{both:>10,.0f} steps/s all told",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Steps a second in ScienceWorld: gentax, the package's server driven by hand, and the package's own `step`.

The same action sequences in the same run, in turn and in a random order, repeated; medians. By hand means the same
three queries that gentax makes (step, score, completed), one py4j call each; once in a JVM with gentax's memory cap and
collector, which shows what gentax itself costs, and once in the JVM as the package starts it, which has no cap.
"At once" is one process with as many threads as rollouts use on this domain, an environment each, and the sum of their
speeds; the package's simulators share a random generator, so that its own environments cannot be played so.

    python benchmarks/sciworld_speed.py [--episodes 12] [--repeats 5] [--stock-episodes 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

import gentax
from gentax.domains.sciworld import DEFAULT, SIMPLIFICATION, variations
from gentax.domains.sciworld.env import plan_for
from gentax.domains.sciworld.simulator import OPTIONS, SHARDS

Episode = tuple[int, Sequence[str]]  # index of the task, actions
PADDING = ("look around", "inventory", "look at agent", "open door to kitchen", "no such thing")


def episodes(count: int) -> list[Episode]:
    """Return the expert's plans on the first test tasks, each after some actions that decide nothing."""
    return [(i, PADDING + plan_for(variation)) for i, variation in enumerate(variations(DEFAULT, "test")[:count])]


def timed(reset: Callable[[int], None], step: Callable[[str], None], played: list[Episode]) -> tuple[float, float]:
    """Play; return (steps a second without the resets, milliseconds a reset)."""
    stepping = resetting = 0.0
    for index, actions in played:
        begun = time.perf_counter()
        reset(index)
        resetting += time.perf_counter() - begun
        begun = time.perf_counter()
        for action in actions:
            step(action)
        stepping += time.perf_counter() - begun
    return sum(len(actions) for _, actions in played) / stepping, 1000 * resetting / len(played)


def at_once(envs: Sequence[gentax.TextEnv], played: list[Episode]) -> tuple[float, float]:
    """Play all of `played` in each environment at the same time; return the sum of their speeds, and a mean reset."""
    with ThreadPoolExecutor(len(envs)) as pool:
        results = list(pool.map(lambda env: timed(lambda i: env.reset(options={"index": i}), env.step, played), envs))
    return sum(speed for speed, _ in results), statistics.mean(reset for _, reset in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--episodes", type=int, default=12)
    parser.add_argument("--stock-episodes", type=int, default=3, help="of the slow one; a prefix of the same")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    from scienceworld import ScienceWorldEnv

    ours = gentax.make("sciworld", split="test", horizon=1000)
    others = [gentax.make("sciworld", split="test", horizon=1000) for _ in range(SHARDS)]
    stock = ScienceWorldEnv()
    os.environ["JAVA_TOOL_OPTIONS"] = OPTIONS
    capped = ScienceWorldEnv()
    del os.environ["JAVA_TOOL_OPTIONS"]
    tasks = variations(DEFAULT, "test")

    def load(env: ScienceWorldEnv, index: int) -> None:
        env.server.load(*tasks[index], SIMPLIFICATION, False)
        env.server.freeActionLook()
        env.server.getTaskDescription()

    def by_hand(env: ScienceWorldEnv, action: str) -> None:
        env.server.step(action)
        env.server.getScore()
        env.server.getCompleted()

    def load_stock(index: int) -> None:
        stock.load(*tasks[index], SIMPLIFICATION)
        stock.reset()

    players = {
        "gentax": (lambda index: ours.reset(options={"index": index}), ours.step, args.episodes),
        "by hand, same JVM flags": (partial(load, capped), partial(by_hand, capped), args.episodes),
        "by hand, stock JVM": (partial(load, stock), partial(by_hand, stock), args.episodes),
        "ScienceWorldEnv.step": (load_stock, stock.step, args.stock_episodes),
    }
    played = episodes(args.episodes)
    threaded = f"gentax, {SHARDS} at once"
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in (threaded, *players)}
    order = np.random.default_rng(0)
    for repeat in range(args.repeats + 2):
        for name in order.permutation([*players, threaded]):
            if name == threaded:
                result = at_once(others, played)
            else:
                reset, step, count = players[name]
                result = timed(reset, step, played[:count])
            if repeat > 1:  # the first two are for the JVMs to warm up
                speeds[name].append(result)
    base = statistics.median(speed for speed, _ in speeds["gentax"])
    together = statistics.median(speed for speed, _ in speeds[threaded])
    print(f"{'':26}{'steps/s':>10}{'ms/reset':>10}{'gentax is':>12}{'at once':>12}")
    for name, results in speeds.items():
        speed = statistics.median(s for s, _ in results)
        reset = statistics.median(r for _, r in results)
        print(f"{name:26}{speed:10.0f}{reset:10.0f}{base / speed:11.2f}x{together / speed:11.2f}x")
    for env in (ours, *others):
        env.close()
    stock.close()
    capped.close()


if __name__ == "__main__":
    main()

"""Wrappers: microseconds that each adds to a step, beside the bare environment in the same run.

    python benchmarks/wrappers_speed.py [--sciworld]

Sokoban plays the same random actions bare and wrapped, turn about; the difference of the fastest repeats is printed,
since what slows a repeat is other work on the machine. The target is less than 20 us a step, or 2 %. In ScienceWorld
a step takes milliseconds and their spread hides a wrapper, so the wrapper's own part (`transform_observation` and
`transform_action`) is timed on observations that were played before. Takes about 15 s; ScienceWorld about 10 s more.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import gentax
from gentax.wrappers import Calls, Horizon, Layout, Menu, Rename, Shaping, distract

REPEATS = 9
EPISODES = 120
HORIZON = 15
WRAPPERS = {
    "distract, volume 80 (8 lines)": lambda env: distract(env, volume=80),
    "distract, volume 10 (1 line)": lambda env: distract(env, volume=10),
    "distract, generic": lambda env: distract(env, kind="generic"),
    "distract, inactive": lambda env: distract(env, probability=0.0),
    "Rename": Rename,
    "Layout, prose": lambda env: Layout(env, "prose"),
    "Layout, list": lambda env: Layout(env, "list"),
    "Layout, json": lambda env: Layout(env, "json"),
    "Calls": Calls,
    "Menu": Menu,
    "Shaping": Shaping,
    "Horizon": lambda env: Horizon(env, HORIZON),
}


def spoken(name: str, action: str) -> str:
    """Return a Sokoban action as a wrapper wants it written."""
    return f"{action}()" if name == "Calls" else f"0 {action}" if name == "Menu" else action


def per_step(name: str, env, seed: int) -> float:
    """Play `EPISODES` random episodes; return microseconds a step, resets not counted."""
    rng = random.Random(seed)
    steps, spent = 0, 0.0
    for index in range(EPISODES):
        env.reset(options={"index": index})
        actions = [spoken(name, action) for action in rng.choices(("up", "down", "left", "right"), k=HORIZON)]
        start = time.perf_counter()
        for action in actions:
            steps += 1
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                break
        spent += time.perf_counter() - start
    return 1e6 * spent / steps


def sokoban() -> None:
    envs = {"bare": gentax.make("sokoban", horizon=HORIZON)}
    envs |= {name: wrap(gentax.make("sokoban", horizon=HORIZON)) for name, wrap in WRAPPERS.items()}
    times: dict[str, list[float]] = {name: [] for name in envs}
    for repeat in range(REPEATS):
        for name, env in envs.items():
            times[name].append(per_step(name, env, repeat))
    bare = min(times.pop("bare"))
    print(f"sokoban, bare: {bare:.1f} us a step", flush=True)
    for name, taken in times.items():
        print(f"  {name:<32}{min(taken) - bare:>+8.1f} us", flush=True)


def sciworld() -> None:
    env = gentax.make("sciworld", split="train")
    texts, spent = [], []
    for index in range(0, 40, 5):
        env.reset(options={"index": index})
        over = False
        while not over and (move := env.expert()) is not None:
            start = time.perf_counter()
            observation, _, terminated, truncated, _ = env.step(move.action)
            spent.append(1e6 * (time.perf_counter() - start))
            texts.append((observation, move.action))
            over = terminated or truncated
    step = statistics.median(spent)
    length = statistics.mean(len(text) for text, _ in texts)
    print(f"sciworld, bare: {step:,.0f} us a step, {length:.0f} characters", flush=True)
    for name, wrap in WRAPPERS.items():
        if name in ("Menu", "Shaping", "Horizon"):
            continue  # asks the simulator; not about text
        wrapped = wrap(env)
        wrapped.reset(options={"index": 0})
        taken = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            for observation, action in texts:
                wrapped.transform_action(action)
                wrapped.transform_observation(observation)
            taken.append(1e6 * (time.perf_counter() - start) / len(texts))
        added = min(taken)
        print(f"  {name:<32}{added:>+8.1f} us {100 * added / step:>6.2f} %", flush=True)
    env.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sciworld", action="store_true", help="also ScienceWorld, which needs Java")
    arguments = parser.parse_args()
    sokoban()
    if arguments.sciworld:
        sciworld()

"""Steps and resets a second in BabyAI: gentax, and the package's own environments driven by numbers.

The same worlds and the same actions (the bot's, and turns about in between) in the same run, in turn and in a random
order, repeated; medians, with the range of the repeats. A step of gentax includes the words for what is seen and the
check whether the action would do anything. A reset of gentax draws worlds until one belongs to the split, two on
average, and hashes each, where the package draws one.

    python benchmarks/babyai_speed.py [--episodes 60] [--repeats 7]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

import gentax
from gentax.domains.babyai import KINDS
from gentax.domains.babyai.env import ACTIONS, draw, make_world

Episode = tuple[int, list[str]]  # index of the task, actions
TURNS = 20  # before the bot's own actions, so that steps are many


def episodes(level: str, count: int) -> list[Episode]:
    """Return what the bot does on the first test tasks, each after some turns."""
    env = gentax.make("babyai", level, split="test", horizon=10_000)
    played = []
    for index in range(count):
        env.reset(options={"index": index})
        actions, over = [], False
        while not over:
            if len(actions) < TURNS:
                action = "turn left" if len(actions) % 2 else "turn right"
            else:
                action = env.expert().action
            over = env.step(action)[2]
            actions.append(action)
        played.append((index, actions))
    return played


def timed(reset: Callable[[int], object], step: Callable[[str], object], played: list[Episode]) -> tuple[float, float]:
    """Play; return (microseconds a step, microseconds a reset)."""
    stepping = resetting = 0.0
    for index, actions in played:
        begun = time.perf_counter()
        reset(index)
        resetting += time.perf_counter() - begun
        begun = time.perf_counter()
        for action in actions:
            step(action)
        stepping += time.perf_counter() - begun
    return 1e6 * stepping / sum(len(actions) for _, actions in played), 1e6 * resetting / len(played)


class Raw:
    """The package's environments on the same worlds."""

    def __init__(self, level: str, count: int) -> None:
        self._worlds = [make_world(kind) for kind in KINDS[level]]
        self._tasks = gentax.make("babyai", level).tasks("test", count)
        self._world = self._worlds[0]

    def start(self, index: int) -> None:
        """Reset to the world of a task; the draw that finds it is not timed as the package's reset."""
        self._world = self._worlds[index % len(self._worlds)]
        draw(self._world, "test", self._tasks[index].seed)

    def resets(self, count: int) -> float:
        """Return microseconds a reset of the package takes."""
        begun = time.perf_counter()
        for index in range(count):
            self._worlds[index % len(self._worlds)].reset(seed=index)
        return 1e6 * (time.perf_counter() - begun) / count

    def step(self, action: str) -> None:
        self._world.step(ACTIONS[action])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()

    order = np.random.default_rng(0)
    print(f"{'':28}{'µs/step':>9}{'range':>14}{'µs/reset':>10}{'step':>8}{'reset':>8}")
    for level in ("small", "maze"):
        ours = gentax.make("babyai", level, split="test", horizon=10_000)
        raw = Raw(level, args.episodes)
        played = episodes(level, args.episodes)
        times: dict[str, list[tuple[float, float]]] = {"gentax": [], "minigrid": []}
        for repeat in range(args.repeats + 1):
            for player in order.permutation(list(times)):
                if player == "gentax":
                    result = timed(lambda index, env=ours: env.reset(options={"index": index}), ours.step, played)
                else:
                    result = timed(raw.start, raw.step, played)[0], raw.resets(args.episodes)
                if repeat:
                    times[player].append(result)
        base = [statistics.median(column) for column in zip(*times["minigrid"], strict=True)]
        for player, results in times.items():
            steps, starts = zip(*results, strict=True)
            step, reset = statistics.median(steps), statistics.median(starts)
            span = f"{min(steps):.0f}-{max(steps):.0f}"
            ratio = f"{step / base[0]:7.2f}x{reset / base[1]:7.2f}x"
            print(f"{f'{level}, {player}':28}{step:9.0f}{span:>14}{reset:10.0f}{ratio}", flush=True)


if __name__ == "__main__":
    main()

"""Steps and resets a second in TextWorldExpress: gentax, and the package's own client.

The same action sequences (gold paths of test tasks, each after some looks around) in the same run, episode by episode
in turn and in a random order, repeated; medians over episodes. A step of gentax includes the shortened text and the
check of the action; both return what is possible next. Each has a Java process of its own, gentax's with a memory cap.

    python benchmarks/twx_speed.py [--episodes 40] [--repeats 9] [--levels easy hard]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import gentax
from gentax.domains.java import javas
from gentax.domains.twx import COOKING, FIRST, MAPREADER, Game
from gentax.domains.twx.env import Simulator

Episode = tuple[int, Sequence[str]]  # index of the task, actions
WARMING = 6  # repeats that do not count: the JVMs compile meanwhile
PADDING = ("look around", "inventory", "look around")
GAMES = {"twx-cooking": COOKING, "twx-mapreader": MAPREADER}


def episodes(game: Game, level: str, count: int) -> list[Episode]:
    """Return gold paths of the first test tasks."""
    interface = Simulator()
    named = [(game.name, game.specs[level].parameters, FIRST["test"] + index, "test") for index in range(count)]
    paths = [(index, (*PADDING, *interface.start_game(*name)[2])) for index, name in enumerate(named)]
    interface.close()
    return paths


def timed(reset: Callable[[int], object], step: Callable[[str], object], episode: Episode) -> tuple[float, float]:
    """Play an episode; return (microseconds a step, microseconds of the reset)."""
    index, actions = episode
    begun = time.perf_counter()
    reset(index)
    started = time.perf_counter()
    for action in actions:
        step(action)
    return 1e6 * (time.perf_counter() - started) / len(actions), 1e6 * (started - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--levels", nargs="+", default=["easy", "hard"])
    args = parser.parse_args()

    os.environ["PATH"] = os.pathsep.join([str(Path(javas()[0]).parent), os.environ["PATH"]])  # the package looks there
    from textworld_express import TextWorldExpressEnv

    order = np.random.default_rng(0)
    print(f"{'':32}{'µs/step':>9}{'10-90 %':>14}{'µs/reset':>10}{'step':>8}{'reset':>8}")
    for name, game in GAMES.items():
        for level in args.levels:
            ours = gentax.make(name, level, split="test", horizon=10_000)
            raw = TextWorldExpressEnv(envStepLimit=10_000)
            raw.load(game.name, game.specs[level].parameters)
            players = {
                "gentax": (lambda index, env=ours: env.reset(options={"index": index}), ours.step),
                "package": (lambda index, env=raw: env.reset(seed=FIRST["test"] + index, gameFold="test"), raw.step),
            }
            played = episodes(game, level, args.episodes)
            times: dict[str, list[tuple[float, float]]] = {player: [] for player in players}
            for repeat in range(args.repeats + WARMING):
                for episode in played:
                    for player in order.permutation(list(players)):
                        result = timed(*players[player], episode)
                        if repeat >= WARMING:
                            times[player].append(result)
            base = [statistics.median(column) for column in zip(*times["package"], strict=True)]
            for player, results in times.items():
                steps, resets = zip(*results, strict=True)
                step, reset = statistics.median(steps), statistics.median(resets)
                low, high = np.quantile(steps, (0.1, 0.9))
                span = f"{low:.0f}-{high:.0f}"
                ratio = f"{step / base[0]:7.2f}x{reset / base[1]:7.2f}x"
                print(f"{f'{name} {level}, {player}':32}{step:9.0f}{span:>14}{reset:10.0f}{ratio}", flush=True)
            ours.close()
            raw.close()


if __name__ == "__main__":
    main()

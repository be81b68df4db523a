"""Steps and resets a second in ALFWorld: gentax, and the packages' own environment.

The same generated games and the same actions (the expert's, after some looks around) in the same run, episode by
episode in turn and in a random order; medians over episodes. Every observation and every list of admissible commands is
compared. A reset starts a game that was not played before, which both have to translate. MB/game is by how much the
process grew while each played, on average; at first that is what Python sets aside for later.

    python benchmarks/alfworld_speed.py [--episodes 12] [--levels small home whole] [--games 1000]
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import gentax
from gentax.core import Task
from gentax.domains.alfworld import parse_level
from gentax.domains.alfworld.games import Start, draw
from gentax.domains.alfworld.homes import rules, wording

PADDING = ("look", "inventory", "examine fridge 1", "help")
TOP = "-= Welcome to TextWorld, ALFRED! =-\n\n"


class Ours:
    """gentax's environment."""

    def __init__(self, level: str) -> None:
        self.env = gentax.make("alfworld", level, split="test", horizon=10_000)

    def reset(self, index: int, start: Start) -> str:
        return self.env.reset(options={"index": index})[0]

    def step(self, action: str) -> str:
        return self.env.step(action)[0]

    def admissible(self) -> list[str]:
        return self.env.admissible()


class Package:
    """The packages' environment, with the wrapper that gives things their names."""

    def __init__(self, level: str) -> None:
        import textworld
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
        from textworld.envs import PddlEnv

        self.env = AlfredDemangler(PddlEnv(textworld.EnvInfos(admissible_commands=True)))
        self.state: Any = None

    def reset(self, index: int, start: Start) -> str:
        self.env.load({"pddl_domain": rules(), "grammar": wording(), "pddl_problem": start.problem})
        self.state = self.env.reset()
        return self.state.feedback.removeprefix(TOP).split("\n\n")[0]

    def step(self, action: str) -> str:
        self.state, _, _ = self.env.step(action)
        return self.state.feedback

    def admissible(self) -> list[str]:
        return self.state["admissible_commands"]


def resident() -> float:
    """Return the resident memory of this process in megabytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def start_of(level: str, index: int) -> Start:
    """Return the game of a test task."""
    return draw(parse_level(level), "test", index, Task("alfworld", level, "test", index).seed)


def gold(ours: Ours, index: int, start: Start) -> list[str]:
    """Return the expert's actions."""
    ours.reset(index, start)
    actions, done = [], False
    while not done:
        actions.append(ours.env.expert().action)
        done = ours.env.step(actions[-1])[2]
    return actions


def timed(player: Ours | Package, index: int, start: Start, actions: list[str]) -> tuple[float, float, list[Any]]:
    """Play an episode; return (milliseconds a step, milliseconds of the reset, all that was said)."""
    begun = time.perf_counter()
    told: list[Any] = [player.reset(index, start)]
    reset = time.perf_counter() - begun
    step = 0.0
    for action in actions:
        told.append(player.admissible())
        begun = time.perf_counter()
        told.append(player.step(action))
        step += time.perf_counter() - begun
    return 1e3 * step / len(actions), 1e3 * reset, told


def compared(level: str, count: int, order: np.random.Generator) -> None:
    """Time both on the same episodes and print it."""
    players = {"gentax": Ours(level), "package": Package(level)}
    watch, times = Ours(level), {name: [] for name in players}
    grown = dict.fromkeys(players, 0.0)
    for index in range(count + 1):  # the first does not count: grammars are parsed meanwhile
        start = start_of(level, index)
        actions = [*PADDING, *gold(watch, index, start)]
        watch.env.close()
        forget()
        told = {}
        for name in order.permutation(list(players)):
            before = resident()
            step, reset, told[name] = timed(players[name], index, start, actions)
            if index:
                times[name].append((step, reset))
                grown[name] += resident() - before
        if told["gentax"] != told["package"]:
            raise SystemExit(f"{level}, task {index}: the two say something else")
    base = [statistics.median(column) for column in zip(*times["package"], strict=True)]
    for name, results in times.items():
        steps, resets = zip(*results, strict=True)
        step, reset = statistics.median(steps), statistics.median(resets)
        low, high = np.quantile(steps, (0.1, 0.9))
        ratio = f"{base[0] / step:8.0f}x{base[1] / reset:8.1f}x"
        span = f"{low:.2f}-{high:.2f}"
        print(
            f"{f'{level}, {name}':22}{step:9.2f}{span:>14}{1e3 / step:9.0f}{reset:10.0f}{ratio}"
            f"{grown[name] / count:10.2f}",
            flush=True,
        )
    players["gentax"].env.close()


def forget() -> None:
    """Have gentax translate the next game, even if it was played a moment ago."""
    from gentax.domains.alfworld import engine

    engine._translated.cache_clear()


def endured(games: int) -> None:
    """Play many games of the default level and print what memory does."""
    env = gentax.make("alfworld", split="train")
    sizes = []
    for index in range(games):
        env.reset(options={"index": index})
        over = False
        while not over:
            _, _, done, cut, _ = env.step(env.expert().action)
            over = done or cut
        if index % (games // 5 or 1) == (games // 5 or 1) - 1:
            sizes.append(f"{resident():.0f}")
    env.close()
    print(f"\nresident memory in MB over {games} games of level {env.level}: {', '.join(sizes)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--episodes", type=int, default=12)
    parser.add_argument("--levels", nargs="+", default=["small", "home", "whole"])
    parser.add_argument("--games", type=int, default=1000)
    args = parser.parse_args()

    endured(args.games)
    order = np.random.default_rng(0)
    print(f"\n{'':22}{'ms/step':>9}{'10-90 %':>14}{'steps/s':>9}{'ms/reset':>10}{'step':>9}{'reset':>9}{'MB/game':>10}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ALFWORLD_DATA"] = folder  # importing alfworld makes this folder, at home where it is not set
        for level in args.levels:
            compared(level, args.episodes, order)


if __name__ == "__main__":
    main()

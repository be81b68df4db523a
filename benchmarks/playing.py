"""Seconds to play 128 Sokoban episodes: gentax's decoder, and the model's own `generate` on every step's whole prompt.

    python benchmarks/playing.py [--repeats 5]

16 tasks of the default level with 8 episodes each at temperature 1, all in flight at once, by the model that ships
with gentax (by an untrained one of the same size where there is none). Both sides are the same policy in the same
engine (`gentax.rollout`), with the same environments and seeds; only `policy.decoder` differs. The peer is what one
writes with transformers alone: prompts padded on the left, one call of `generate` with its key-value cache for all
episodes still running, stopped at the end of the action (`gentax.models.decoding.stock_generate`). It draws from
torch's generator and gentax from each episode's own, so they play other episodes of the same length on average:
compare the rates. Nothing is kept from one repeat to the next. Sides take turns in a random order; medians.

Contexts: `full` appends to the conversation, `window(1)` writes a new prompt every step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from training_step import GROUP, TASKS, model_folder, quiet

import gentax
from gentax.core.memory import keep_freed_memory
from gentax.models.decoding.stock_generate import StockDecoder
from gentax.policies.local import LocalPolicy, load
from gentax.rollouts import EnvPool, Play, rollout

SIDES = ("gentax", "generate")
Figures = tuple[float, float, float]  # seconds, sampled tokens a second, steps a second


def timed(policy: LocalPolicy, tasks: list[gentax.Task], play: Play, pool: EnvPool, seed: int) -> Figures:
    """Play all episodes once."""
    policy.refresh()
    begun = time.perf_counter()
    episodes = rollout(policy, tasks, play=play, samples=GROUP, seed=seed, pool=pool)
    seconds = time.perf_counter() - begun
    return seconds, sum((e.written or 0) for e in episodes) / seconds, sum(e.length for e in episodes) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--contexts", nargs="+", default=["full", "window(1)"])
    args = parser.parse_args()

    quiet()
    keep_freed_memory()  # as in training; for both sides
    with tempfile.TemporaryDirectory() as scratch:
        folder, trained = model_folder(Path(scratch))
        policies = dict(zip(SIDES, (load(folder), load(folder)), strict=True))
    policies["generate"].decoder = StockDecoder(policies["generate"].model)
    with gentax.make("sokoban") as env:
        tasks = env.tasks("train", TASKS)
    print(
        f"{'the model that ships with gentax' if trained else 'an untrained model'}, {TASKS * GROUP} episodes; "
        f"torch {version('torch')}, transformers {version('transformers')}, {os.cpu_count()} cores"
    )
    print(f"{'':22}{'s':>8}{'range':>15}{'tokens/s':>10}{'steps/s':>9}{'gentax is':>11}")
    order = np.random.default_rng(0)
    for context in args.contexts:
        # An untrained model does not know when to stop; 4 tokens is what an answer of the trained one has.
        play = Play(context=context, temperature=1.0, max_new_tokens=0 if trained else 4)
        figures: dict[str, list[Figures]] = {side: [] for side in SIDES}
        with EnvPool(play) as pool:
            for repeat in range(args.repeats + 1):
                for side in order.permutation(SIDES):
                    result = timed(policies[side], tasks, play, pool, seed=repeat)
                    if repeat:  # the first makes the environments and warms up
                        figures[side].append(result)
        middle = {side: [statistics.median(column) for column in zip(*figures[side], strict=True)] for side in SIDES}
        for side in SIDES:
            seconds, tokens, steps = middle[side]
            spread = f"{min(figures[side])[0]:.2f}-{max(figures[side])[0]:.2f}"
            ratio = middle["gentax"][2] / steps
            print(f"{context + ', ' + side:22}{seconds:8.2f}{spread:>15}{tokens:10.0f}{steps:9.0f}{ratio:10.2f}x")
    print("ratio: of steps a second")


if __name__ == "__main__":
    main()

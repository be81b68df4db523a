"""Seconds to play 128 Sokoban episodes: gentax's decoders, and the model's own `generate` on every step's whole prompt.

    python benchmarks/playing.py [--shape base|gemma3|mistral|qwen3.5 ...] [--contexts full "window(2)"] [--repeats 5]

16 tasks of the default level with 8 episodes each at temperature 1, all in flight at once. `base` is the model that
ships with gentax (an untrained one of the same size where there is none). The other shapes are untrained models of 3 to
6 million parameters with the layers of their family (`SHAPES`); they do not know when to stop, so that each of their
replies has 4 tokens, as many as an action of the trained one, and their episodes last to the horizon. Both sides are
the same policy in the same engine (`gentax.rollout`), with the same environments and seeds; only `policy.decoder`
differs. The peer is what one writes with transformers alone: prompts padded on the left, one call of `generate` with
its key-value cache for all episodes still running, stopped at the end of the action (`StockDecoder`). It samples from
torch's generator and gentax from each episode's own, so they play other episodes of the same length on average: compare
the rates. Nothing is kept from one repeat to the next. Sides take turns in a random order; medians.

Contexts: `full` appends to the conversation, `window(k)` writes a new prompt every step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stock_generate import StockDecoder
from training_step import GROUP, TASKS, model_folder, quiet

import gentax
from gentax.core.process import keep_freed_memory
from gentax.models.loading import load_tokenizer
from gentax.policies.local import LocalPolicy, load_local_policy
from gentax.rollouts import EnvPool, RolloutConfig, rollout

SIDES = ("gentax", "generate")
_SIZE = {"hidden_size": 256, "intermediate_size": 704, "num_attention_heads": 4, "max_position_embeddings": 4096}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {  # (model type of transformers, settings)
    "gemma3": (  # five layers with a window of 512 to one without, one head of keys
        "gemma3_text",
        {
            **_SIZE,
            "num_hidden_layers": 6,
            "num_key_value_heads": 1,
            "head_dim": 64,
            "query_pre_attn_scalar": 64,
            "sliding_window": 512,
        },
    ),
    "mistral": (  # a window in every layer
        "mistral",
        {**_SIZE, "num_hidden_layers": 6, "num_key_value_heads": 2, "head_dim": 64, "sliding_window": 512},
    ),
    "qwen3.5": (  # three recurrent layers (gated delta rule) to one with attention
        "qwen3_5_text",
        {
            **_SIZE,
            "num_hidden_layers": 8,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "linear_key_head_dim": 32,
            "linear_value_head_dim": 32,
            "linear_num_key_heads": 4,
            "linear_num_value_heads": 8,
        },
    ),
}
Figures = tuple[float, float, float]  # seconds, sampled tokens a second, steps a second


def untrained(shape: str) -> LocalPolicy:
    """Return a policy of one of `SHAPES`, with the tokenizer of the model that ships with gentax."""
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, settings = SHAPES[shape]
    tokenizer = load_tokenizer("base")
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), tie_word_embeddings=True, eos_token_id=None, **settings
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    return LocalPolicy(model.eval(), tokenizer, shape)


def pair(shape: str) -> tuple[dict[str, LocalPolicy], bool]:
    """Return the policy of each side, and whether it is trained."""
    if shape == "base":
        with tempfile.TemporaryDirectory() as scratch:
            folder, trained = model_folder(Path(scratch))
            policies = {side: load_local_policy(folder) for side in SIDES}
    else:
        policies, trained = {side: untrained(shape) for side in SIDES}, False
    policies["generate"].decoder = StockDecoder(policies["generate"].model)
    return policies, trained


def timed(policy: LocalPolicy, tasks: list[gentax.Task], play: RolloutConfig, pool: EnvPool, seed: int) -> Figures:
    """Play all episodes once."""
    policy.clear_cache()
    begun = time.perf_counter()
    episodes = rollout(policy, tasks, config=play, samples=GROUP, seed=seed, pool=pool)
    seconds = time.perf_counter() - begun
    return seconds, sum((e.written or 0) for e in episodes) / seconds, sum(e.length for e in episodes) / seconds


def compare(shape: str, contexts: Sequence[str], repeats: int, tasks: list[gentax.Task], horizon: int | None) -> None:
    """Print the figures of one shape."""
    policies, trained = pair(shape)
    model = policies["gentax"].model
    size = sum(p.numel() for p in model.parameters()) / 1e6
    kind = type(policies["gentax"].decoder).__name__
    print(f"{shape}: {'trained' if trained else 'untrained'}, {size:.1f} M parameters, {kind}")
    order = np.random.default_rng(0)
    for context in contexts:
        play = RolloutConfig(context=context, temperature=1.0, horizon=horizon, max_new_tokens=0 if trained else 4)
        figures: dict[str, list[Figures]] = {side: [] for side in SIDES}
        with EnvPool(play) as pool:
            for repeat in range(repeats + 1):
                for side in order.permutation(SIDES):
                    if repeat:
                        figures[side].append(timed(policies[side], tasks, play, pool, seed=repeat))
                    else:  # makes the environments and warms up
                        timed(policies[side], tasks[:2], play, pool, seed=repeat)
        middle = {side: [statistics.median(column) for column in zip(*figures[side], strict=True)] for side in SIDES}
        for side in SIDES:
            seconds, tokens, steps = middle[side]
            spread = f"{min(figures[side])[0]:.2f}-{max(figures[side])[0]:.2f}"
            ratio = middle["gentax"][2] / steps
            print(f"{context + ', ' + side:22}{seconds:8.2f}{spread:>15}{tokens:10.0f}{steps:9.0f}{ratio:10.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--contexts", nargs="+", default=["full", "window(1)"])
    parser.add_argument("--shape", nargs="+", default=["base"], choices=["base", *SHAPES])
    parser.add_argument("--tasks", type=int, default=TASKS, help=f"tasks, each played {GROUP} times")
    parser.add_argument("--horizon", type=int, help="steps of an episode, at most; the level's own when left out")
    args = parser.parse_args()

    quiet()
    keep_freed_memory()  # as in training; for both sides
    with gentax.make("sokoban") as env:
        tasks = env.tasks("train", args.tasks)
    print(
        f"{args.tasks * GROUP} episodes; torch {version('torch')}, transformers {version('transformers')}, "
        f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    )
    print(f"{'':22}{'s':>8}{'range':>15}{'tokens/s':>10}{'steps/s':>9}{'gentax is':>11}")
    for shape in args.shape:
        compare(shape, args.contexts, args.repeats, tasks, args.horizon)
    print("ratio: of steps a second")


if __name__ == "__main__":
    main()

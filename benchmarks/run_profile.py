"""Where the time of a training run goes, how much of what it computes is padding, and whether its memory stays flat.

    python benchmarks/run_profile.py [--source sokoban] [--steps 8] [--iterations 500]

First a run at the default settings (16 groups of 8 episodes a step, the model that ships with gentax, no looks at
held-out tasks), after one step to warm up. The clock is stopped around

  decoding       passes of prompts, steps of answers and drawing tokens (`gentax.models.decoding`)
  learning       forward and backward passes of policy and reference with the loss, clipping, the optimiser
  environments   every `reset`, `step` and `admissible`
  other          the rest, of which the batches, the texts (messages and tokens) and the checkpoint are shown apart

With a domain that plays in several threads, environments count by the thread: that run's shares do not add up.

Padding, as a share of the tokens computed: tokens that fill a training batch up to one of its few sizes, and rows of
the decoder whose answer is over and which still run.

Then `--iterations` steps of a small batch. Peak resident memory of each (of the GPU, where there is one) is what the
kernel counts. It rises while caches fill that have a limit: products compiled for a shape, tokenized texts.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from training_step import quiet

from gentax.models.chat import ChatCodec
from gentax.models.decoding import llama_decoder
from gentax.models.decoding.llama_model import LlamaModel
from gentax.rollouts import RolloutConfig, engine
from gentax.training import policy_gradient, run, train
from gentax.training.config import TrainConfig

ARITHMETIC, ENVIRONMENTS = ("decoding", "learning"), ("environments",)


class Clock:
    """Seconds by kind; what is timed inside something else that is timed counts once, as the inner kind."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def around(self, kind: str, do: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(do)
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            self._inner.append(0.0)
            try:
                return do(*args, **kwargs)
            finally:
                spent = time.perf_counter() - begun
                self.seconds[kind] += spent - self._inner.pop()
                self._inner[-1] += spent

        return timed


@contextmanager
def timed(clock: Clock, rows: Counter[str]) -> Iterator[None]:
    """Time the parts of a run while this lasts, and count the rows of the decoder's steps."""
    parts = [
        ("decoding", llama_decoder, ("prefill", "decode_step", "sample_tokens")),
        ("decoding", LlamaModel, ("logits",)),
        ("learning", policy_gradient, ("loss_backward", "clip_grad_norm")),
        ("learning", torch.optim.Adam, ("step",)),
        ("batches", policy_gradient, ("make_batches",)),
        ("texts", engine, ("build_message",)),
        ("texts", ChatCodec, ("first_prompt", "next_prompt", "decode")),
        ("checkpoint", run, ("save_checkpoint",)),
    ]
    opened, narrow = engine.make_env, llama_decoder.LlamaDecoder._inputs

    def make_env(*args: Any, **kwargs: Any) -> Any:
        env = opened(*args, **kwargs)
        for name in ("reset", "step", "admissible"):
            setattr(env, name, clock.around("environments", getattr(env, name)))
        return env

    def inputs(self: Any, at: Any) -> Any:
        if at[0].ids:  # the first token follows from the prompt: no step computes it
            rows.update(all=len(at), idle=sum(answer.finished for answer in at))
        return narrow(self, at)

    with ExitStack() as patches:
        for kind, owner, names in parts:
            for name in names:
                patches.enter_context(mock.patch.object(owner, name, clock.around(kind, getattr(owner, name))))
        patches.enter_context(mock.patch.object(engine, "make_env", make_env))
        patches.enter_context(mock.patch.object(llama_decoder.LlamaDecoder, "_inputs", inputs))
        yield


def profile(config: TrainConfig) -> dict[str, Any]:
    """Train, the first step to warm up; return the seconds by kind of the others, and what was padding."""
    clock, rows, steps = Clock(), Counter[str](), []
    begun = 0.0

    def on_row(row: dict[str, float]) -> None:
        nonlocal begun
        if row["step"] == 1:
            clock.seconds.clear()
            rows.clear()
            begun = time.perf_counter()
        else:
            steps.append(row)

    with tempfile.TemporaryDirectory() as out, timed(clock, rows):
        train(config, f"{out}/run", on_row)
        total = time.perf_counter() - begun
    distinct, computed = (sum(row.get(key, 0) for row in steps) for key in ("distinct_tokens", "computed_tokens"))
    return {
        "total_s": total,
        "steps": len(steps),
        "seconds": dict(clock.seconds) | {"other": total - sum(clock.seconds.values())},
        "outside": 1 - sum(clock.seconds[kind] for kind in ARITHMETIC + ENVIRONMENTS) / total,
        "training_padding": 1 - distinct / computed if computed else 0.0,
        "playing_padding": rows["idle"] / rows["all"] if rows["all"] else 0.0,
        "distinct_tokens": distinct,
    }


def memory(config: TrainConfig) -> list[float]:
    """Train; return the peak megabytes of each step."""
    peaks: list[float] = []

    def on_row(_: dict[str, float]) -> None:
        peaks.append(peak())

    peak()
    with tempfile.TemporaryDirectory() as out:
        train(config, f"{out}/run", on_row)
    return peaks


def peak() -> float:
    """Return the largest memory since the last call, in megabytes."""
    if torch.cuda.is_available():
        most = torch.cuda.max_memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
        return most
    with open("/proc/self/status", encoding="utf-8") as status:
        most = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**10
    with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
        file.write("5")  # sets the mark down to what is resident now
    return most


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="sokoban", help="the domain trained on")
    parser.add_argument("--context", default="full", help='"full", "window(2)", …')
    parser.add_argument("--base", default="base", help="the model to start from")
    parser.add_argument("--steps", type=int, default=8, help="timed steps; 0 for no profile")
    parser.add_argument("--tasks", type=int, default=16, help="groups in a timed step")
    parser.add_argument("--iterations", type=int, default=500, help="steps whose memory is measured; 0 for none")
    args = parser.parse_args(argv)

    quiet()
    common = {"source": args.source, "model": args.base, "eval_steps": 0}
    config = RolloutConfig(context=args.context, temperature=0.7)
    if args.steps:
        steps = args.steps + 1
        found = profile(
            TrainConfig(**common, rollout=config, max_steps=steps, tasks_per_step=args.tasks, save_steps=steps)
        )
        print(f"{args.source}, {args.context}: {found['steps']} steps, {found['total_s'] / found['steps']:.2f} s each")
        for kind, seconds in sorted(found["seconds"].items(), key=lambda item: -item[1]):
            print(f"  {kind:14}{seconds / found['steps']:8.3f} s a step{seconds / found['total_s']:8.1%}")
        print(f"outside model arithmetic and environments: {found['outside']:.1%} (to be under 15 %)")
        print(f"padding of training batches: {found['training_padding']:.1%} (to be under 10 %)")
        print(f"idle rows of decoding steps: {found['playing_padding']:.1%}")
    if args.iterations:
        every = max(1, args.iterations)
        small = TrainConfig(
            **common,
            rollout=config,
            max_steps=args.iterations,
            tasks_per_step=2,
            num_generations=4,
            learning_rate=1e-5,
            save_steps=every,
        )
        peaks = memory(small)
        fifths = [statistics.median(part) for part in np.array_split(peaks, min(5, len(peaks)))]
        growth = (fifths[-1] - fifths[len(fifths) // 2]) / fifths[len(fifths) // 2]
        print(
            f"peak memory of a step over {len(peaks)} steps: {', '.join(f'{mb:.0f}' for mb in fifths)} MB (medians of "
            f"fifths; {growth:+.1%} from the third to the last), most {max(peaks):.0f} MB"
        )


if __name__ == "__main__":
    main()

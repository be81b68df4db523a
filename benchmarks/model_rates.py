"""How fast a model plays and learns here: tokens a second and memory, beside what people use otherwise.

Playing is whole episodes on test tasks, with the policy's own decoder and with the model's `generate` on every step's
whole prompt, as one writes it with transformers alone. Learning is one policy-gradient step with LoRA on
episodes that were played before, and the same step by TRL's GRPOTrainer with the same adapters (see `training_step.py`
for what is alike). Each side runs in a process of its own, so that its peak memory is its own.

Used by `real_model.py` and `gpu_runbook.py`; it is no script.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from run_profile import peak
from stock_generate import StockDecoder
from training_step import GROUP, KL, evened, quiet, trl_trainer, with_random_returns

import gentax
from gentax.core import Episode
from gentax.models.options import ModelOptions
from gentax.models.source import BASE
from gentax.policies.local import LocalPolicy, load_local_policy
from gentax.rollouts import RolloutConfig
from gentax.training.config import LoraConfig, PolicyGradientConfig, TrainConfig

LORA_RATE = 1e-5  # of the timed steps; so small that they stay alike


@dataclass(frozen=True)
class Played:
    """One policy on one domain, by the clock."""

    episodes: list[Episode]
    seconds: float
    peak_mb: float

    def figures(self) -> dict[str, float]:
        """Return what the clock comes to. Tokens read are those new to the model: a window's prompts as a whole."""
        steps = [step for episode in self.episodes for step in episode.steps]
        read = sum(len(step.tokens.prompt) for step in steps if step.tokens is not None)
        written = sum(step.written or 0 for step in steps)
        return {
            "episodes": len(self.episodes),
            "steps": len(steps),
            "seconds": self.seconds,
            "tokens_read": read,
            "tokens_written": written,
            "written_per_s": written / self.seconds,
            "tokens_per_s": (read + written) / self.seconds,
            "steps_per_s": len(steps) / self.seconds,
            "minutes_of_32_episodes": 32 * self.seconds / len(self.episodes) / 60,
            "peak_mb": self.peak_mb,
        }


def play(policy: LocalPolicy, domain: str, tasks: int, how: RolloutConfig, seed: int = 0) -> Played:
    """Play the first test tasks of a domain."""
    policy.clear_cache()
    with gentax.make(domain) as env:
        listed = env.tasks("test", min(tasks, env.size("test")))
    peak()
    begun = time.perf_counter()
    # Not `gentax.evaluate`, which stops where most replies cannot be read: those of a model as it comes often cannot.
    episodes = gentax.rollout(policy, listed, config=how, seed=seed)
    return Played(episodes, time.perf_counter() - begun, peak())


def play_all(
    model: str, options: ModelOptions, tasks: Mapping[str, int], how: RolloutConfig, stock: bool = False
) -> dict[str, Played]:
    """Play each domain's first tasks by the policy's own decoder, or by the model's `generate`."""
    quiet()
    policy = load_local_policy(model, options)
    if stock:
        policy.decoder = StockDecoder(policy.model)
    warm = next(iter(tasks))
    play(policy, warm, 2, RolloutConfig(context=how.context, horizon=1, max_new_tokens=4))
    return {name: play(policy, name, count, how) for name, count in tasks.items()}


def episodes_to_learn(episodes: Sequence[Episode], sequences: int) -> list[Episode]:
    """Return the first episodes that make up about so many sequences, a multiple of 8; in groups, random returns.

    Where every step is a sequence, no episode has more than half of them: one alone is compared with nobody, and there
    is nothing to learn.
    """
    kept: list[Episode] = []
    count = 0
    for episode in episodes:
        if count >= sequences:
            break
        if len(list(episode.sequences())) > 1:
            episode = replace(episode, steps=episode.steps[: max(1, sequences // 2)])
        kept.append(episode)
        count += len(list(episode.sequences()))
    if count == len(kept):  # whole episodes, a sequence each
        kept = kept[: len(kept) // GROUP * GROUP]
    groups = max(1, len(kept) // GROUP)
    kept = [replace(e, task=replace(e.task, index=min(n // GROUP, groups - 1)), sample=n) for n, e in enumerate(kept)]
    return with_random_returns(evened(kept))


def learn(
    model: str, options: ModelOptions, episodes: list[Episode], lora: LoraConfig, repeats: int
) -> dict[str, float]:
    """Time policy-gradient steps by gentax, after one to warm up."""
    import torch

    from gentax.models.device import available_memory, resolve_device
    from gentax.models.loading import load_meta_model
    from gentax.training.learner import footprint, learner_of
    from gentax.training.policy_gradient import update

    quiet()
    recipe = TrainConfig(
        model=model, algorithm=PolicyGradientConfig(beta=KL), rollout=RolloutConfig(temperature=1.0), lora=lora
    )
    bare, device = load_meta_model(model, options), resolve_device(options.device)
    chosen = footprint(bare, recipe, device, available_memory(device)).gradient_checkpointing  # as a run would
    learner = learner_of(load_local_policy(model, options), recipe, gradient_checkpointing=chosen)
    reference = learner.start_model()
    optimizer = torch.optim.Adam(learner.parameters, lr=LORA_RATE, fused=True)
    rewards = [np.array([step.reward for step in episode.steps]) for episode in episodes]
    seconds, most = [], 0.0
    peak()
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        update(learner, reference, optimizer, episodes, rewards, recipe, "the benchmark")
        seconds.append(time.perf_counter() - begun)
        most = max(most, peak())
    return _rate(episodes, seconds[1:], most)


def learn_with_trl(
    model: str, options: ModelOptions, episodes: list[Episode], lora: LoraConfig, repeats: int, scratch: str
) -> dict[str, float]:
    """Time the same step by TRL: its precision for this machine, 8 sequences at a time, no checkpointing."""
    from transformers import AutoConfig

    from gentax.models.device import has_native_bf16, resolve_device

    quiet()
    device = resolve_device(options.device)
    precision = "bf16" if has_native_bf16(device.type) else "fp32"
    peak()
    folder = BASE if model == "base" else Path(model)
    dtype = options.dtype
    if dtype == "auto":
        dtype = str(AutoConfig.from_pretrained(folder).dtype or "float32").removeprefix("torch.")
    step, _ = trl_trainer(
        folder, episodes, precision, GROUP, scratch, device.type, dtype=dtype, adapters=peft_config(lora)
    )
    seconds = [step() for _ in range(repeats)]
    return _rate(episodes, seconds, peak())


def peft_config(lora: LoraConfig | None) -> Any:
    """Return what peft calls the adapters of `LoraConfig`; None for none."""
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")


def alone(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a process of its own, which ends when this one is killed."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_end_with, initargs=(os.getpid(),)) as pool:
        return pool.submit(function, *args).result()


def _end_with(parent: int) -> None:
    """Watch the parent: a pool's process notices its end only when it is done, minutes later."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def here(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in this process: for toys, whose memory nobody asks for."""
    try:
        return function(*args)
    finally:
        gc.collect()


def _rate(episodes: Sequence[Episode], seconds: list[float], most: float) -> dict[str, float]:
    tokens = sum(len(sequence) for episode in episodes for sequence in episode.sequences())
    middle = statistics.median(seconds)
    return {
        "sequences": sum(len(list(episode.sequences())) for episode in episodes),
        "tokens": tokens,
        "s_per_step": middle,
        "tokens_per_s": tokens / middle,
        "peak_mb": most,
    }

"""Peak memory and speed of one policy-gradient step with LoRA at 270 M parameters: gentax, and TRL's GRPOTrainer.

    pip install trl==1.16.0        # into the environment that has gentax; without it only gentax is measured
    python benchmarks/step_memory.py [--model FOLDER] [--sequences 8] [--tokens 400] [--learned 32] [--repeats 2]

The model: of the shape of Gemma 3 270M, with random weights in bf16 (18 layers, width 640, vocabulary 262,144, a window
of 512 in five layers of six), or `--model`. The batch: conversations of two groups with random tokens; those of a group
begin with the same half, and `--learned` tokens of each are sampled, in four replies. Both sides get the same tokens,
masks, advantages and settings (LoRA of rank 16 on all linear layers, KL to the start with weight 0.01, fused Adam). TRL
is measured as it comes (bf16, gradient checkpointing), with all sequences in one pass; gentax with what it chooses.

Each is a process of its own. Peak memory is the largest resident set of that process (`ru_maxrss`) after the model is
loaded and all steps are done; what Python and the libraries take is in it (some 0.5 GB). Tokens a second count each
token of each sequence once, whatever is computed. CPU seconds are those of all threads of the process: what to compare
on a machine that does other things meanwhile.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from training_step import KL, RATE, quiet, trl_trainer

from gentax.core import Episode, Outcome, Task
from gentax.core.episode import Step, Tokens

TURNS = 4
RANK = 16
SHAPE = {
    "vocab_size": 262144,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 512,
    "max_position_embeddings": 32768,
    "layer_types": [("sliding_attention", "full_attention")[n % 6 == 5] for n in range(18)],
    "tie_word_embeddings": True,
}


def random_model(folder: Path) -> Path:
    """Write a model of Gemma 3 270M's shape with random weights, and a tokenizer that knows a few of its tokens."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from gentax.training.pretrain import train_tokenizer

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(
        AutoConfig.for_model("gemma3_text", **SHAPE), dtype=torch.bfloat16
    ).save_pretrained(folder)
    train_tokenizer(iter(["a b c d e f"] * 20), 300).save_pretrained(folder)
    return folder


def batch(sequences: int, tokens: int, learned: int, vocabulary: int) -> list[Episode]:
    """Return conversations in two groups, with random tokens and returns."""
    rng = np.random.default_rng(0)
    said, read = learned // TURNS, (tokens // 2 - learned) // TURNS
    episodes = []
    for task in range(2):
        stem = rng.integers(10, vocabulary, tokens - TURNS * (said + read))
        for sample in range(sequences // 2):
            steps = []
            for turn in range(TURNS):
                shown = rng.integers(10, vocabulary, read)
                shown = shown if turn else np.concatenate([stem, shown])
                ids = rng.integers(10, vocabulary, said).astype(np.int32)
                logprobs = np.full(said, -np.log(vocabulary), np.float32)
                steps.append(
                    Step(
                        "",
                        "",
                        "",
                        float(rng.normal()),
                        True,
                        tokens=Tokens(turn > 0, shown.astype(np.int32), ids, logprobs),
                    )
                )
            episodes.append(Episode(Task("sokoban", "", "train", task), sample, "", tuple(steps), Outcome.FAILURE))
    return episodes


def gentax_side(folder: Path, episodes: list[Episode], _: str) -> tuple[Callable[[], Any], str]:
    """Set up gentax as `gentax.training.train` does; return what makes a step, and what gentax has chosen."""
    import torch

    from gentax.core.process import keep_freed_memory
    from gentax.models.device import available_memory
    from gentax.models.loading import load_meta_model, load_model, load_tokenizer
    from gentax.policies.local import LocalPolicy
    from gentax.rollouts import RolloutConfig
    from gentax.training.config import LoraConfig, PolicyGradientConfig, TrainConfig
    from gentax.training.learner import footprint, learner_of
    from gentax.training.policy_gradient import update
    from gentax.training.rewards import rewards_of

    keep_freed_memory()
    config = TrainConfig(
        algorithm=PolicyGradientConfig(beta=KL), rollout=RolloutConfig(temperature=1.0), lora=LoraConfig(RANK)
    )
    cpu = torch.device("cpu")
    found = footprint(load_meta_model(folder), config, cpu, available_memory(cpu))
    policy = LocalPolicy(load_model(folder), load_tokenizer(folder))
    learner = learner_of(policy, config, gradient_checkpointing=found.gradient_checkpointing)
    optimizer = torch.optim.Adam(learner.parameters, lr=RATE, fused=True)

    def step() -> None:
        rewards = rewards_of(episodes, config.reward)
        update(learner, learner.start_model(), optimizer, episodes, rewards, config, "the benchmark")
        learner.publish()

    step()
    return step, f"{found} in a whole run: {found.held()}"


def trl_side(folder: Path, episodes: list[Episode], scratch: str) -> tuple[Callable[[], Any], str]:
    """Set up TRL as it comes, with adapters."""
    from peft import LoraConfig

    adapters = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    step, _ = trl_trainer(
        folder,
        episodes,
        "default",
        len(episodes),
        scratch,
        dtype="bfloat16",
        adapters=adapters,
        group=len(episodes) // 2,
    )
    return step, "as it comes"


def serve(pipe: Connection, side: Any, folder: Path, episodes: list[Episode], repeats: int, scratch: str) -> None:
    quiet()
    step, note = side(folder, episodes, scratch)
    wall, cpu = [], []
    for _ in range(repeats):
        begun, used = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - used)
    pipe.send((min(wall), min(cpu), note, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model folder in place of random weights")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=400, help="in each sequence")
    parser.add_argument("--learned", type=int, default=32, help="of them sampled")
    parser.add_argument("--repeats", type=int, default=2, help="steps that are timed, after one that is not")
    args = parser.parse_args(argv)
    sides = {"gentax": gentax_side}
    try:
        sides[f"TRL {version('trl')}"] = trl_side
    except PackageNotFoundError:
        print("TRL is not installed, so gentax is measured alone")
    quiet()
    with tempfile.TemporaryDirectory() as scratch:
        from transformers import AutoConfig

        folder = args.model or random_model(Path(scratch) / "model")
        vocabulary = AutoConfig.from_pretrained(folder).get_text_config().vocab_size
        episodes = batch(args.sequences, args.tokens, args.learned, vocabulary)
        tokens = sum(len(sequence) for episode in episodes for sequence in episode.sequences())
        print(
            f"{folder if args.model else 'random weights'}, {args.sequences} sequences, {tokens} tokens, "
            f"{os.cpu_count()} cores"
        )
        spawn = multiprocessing.get_context("spawn")
        print(f"{'':12}{'peak GB':>9}{'s/step':>9}{'tokens/s':>10}{'CPU s/step':>12}")
        for name, side in sides.items():
            mine, theirs = spawn.Pipe()
            process = spawn.Process(target=serve, args=(theirs, side, folder, episodes, args.repeats, scratch))
            process.start()
            theirs.close()
            wall, cpu, note, peak = mine.recv()
            process.join()
            print(f"{name:12}{peak / 1e9:9.2f}{wall:9.2f}{tokens / wall:10.0f}{cpu:12.2f}  {note}", flush=True)


if __name__ == "__main__":
    main()

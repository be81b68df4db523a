"""Seconds of one policy-gradient step: gentax, and TRL's GRPOTrainer on the same model and the same batch.

    pip install trl==1.16.0        # into the environment that has gentax; without it only gentax is timed
    python benchmarks/training_step.py [--context full] [--repeats 7] [--tokens 25000] [--same-allocator]

The batch: whole episodes of Sokoban, 8 on each task, played by the model that ships with gentax (by an untrained one of
the same size where there is none); as many tasks of 16 as come nearest to `--tokens` tokens (0: all of them, the batch
of a default training run). Returns are drawn at random, so that every episode is learned from. With `--context full`
an episode is one sequence in which several spans were sampled; with "window(2)", the paper's prompts, every step is one
(up to seven are left out, so that TRL's batches come out even). Both sides get the same token ids, masks and advantages
and minimise the same loss: clipped ratio, KL to the starting model with weight 0.01 (k3), mean over the sampled tokens
of the batch, gradient clipped at norm 1, one step of fused Adam. That they do is checked: the directions of the first
gradients are compared.

Timed, on both sides, from the finished episodes to the changed weights:
  gentax  `rewards_of` and `update` of `gentax.training`. Sorts the sequences into a tree of their beginnings, and
          computes each distinct (beginning, token) once; one forward pass of the reference and one forward and backward
          of the policy; vocabulary scored at sampled tokens only; log-probabilities of playing are the old ones.
  TRL     from `on_step_begin` to `on_step_end`. `rollout_func` returns the finished episodes (the sampled spans are
          given as `env_mask`); their advantages are put in where TRL has computed its own. It decodes the
          completions to text (for reward functions), pads all sequences to the longest prompt plus the longest
          completion, shuffles them, and makes one forward pass of the reference and one forward and backward of the
          policy. Old log-probabilities are not computed again, since batch and update are aligned. Its fused LM head
          scores, on a CPU, the vocabulary at every position (prompts and padding too), in chunks, and a second time
          in the backward pass; no logits are kept.
"TRL default" is what GRPOConfig gives unasked: bf16, gradient checkpointing, 8 sequences at a time. The other two are
tuned for this machine: no checkpointing, and the fastest of several batches. Nowhere is anything logged or saved.

Each contender is a process of its own with all cores, as a user would run it; they take turns in a random order while
the others sleep. gentax tells glibc to keep freed memory, TRL does not; `--same-allocator` does that for TRL too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pickle
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from gentax.core import Episode

INSTALL = "pip install trl==1.16.0"
TASKS, GROUP = 16, 8
BATCHES = (16, 48)  # per device, of the tuned TRL; or what divides the batch near them
KL, CLIP, RATE = 0.01, 0.2, 1.5e-4


def model_folder(scratch: Path) -> tuple[Path, bool]:
    """Return the folder of the model that ships with gentax, or of an untrained one; and whether it is trained."""
    from gentax.models.source import BASE

    if (BASE / "config.json").is_file():
        return BASE, True
    import torch

    import gentax
    from gentax.domains import domain
    from gentax.policies.load import ExpertPolicy
    from gentax.rollouts import RolloutConfig, rollout
    from gentax.rollouts.prompt import build_message
    from gentax.training.pretrain import new_model, train_tokenizer

    with gentax.make("sokoban") as env:
        tasks = env.tasks("train", 300)
    episodes = rollout(ExpertPolicy(0.3), tasks, config=RolloutConfig())
    rules = domain("sokoban").rules
    steps = [(episode, step) for episode in episodes for step in episode.steps]
    text = [
        build_message(RolloutConfig(), rules, episode.goal, (), step.observation, None)[0] for episode, step in steps
    ]
    tokenizer = train_tokenizer(iter(text + [step.action for _, step in steps]), 2048)
    tokenizer.add_tokens([f"<unused {i}>" for i in range(2048 - len(tokenizer))])  # the vocabulary of the real one
    torch.manual_seed(0)
    folder = scratch / "untrained"
    new_model("micro", tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, False


def play_batch(folder: Path, trained: bool, context: str, tokens: int) -> list[Episode]:
    """Play the batch, keep as many tasks as make about `tokens` tokens, and give every episode a random return."""
    import gentax
    from gentax.policies.local import load_local_policy
    from gentax.rollouts import RolloutConfig, rollout

    with gentax.make("sokoban") as env:
        tasks = env.tasks("train", TASKS)
    # An untrained model does not know when to stop; 4 tokens is what an answer of the trained one has.
    config = RolloutConfig(context=context, temperature=1.0, max_new_tokens=0 if trained else 4)
    episodes = rollout(load_local_policy(folder), tasks, config=config, samples=GROUP)
    if tokens:
        parts = [episodes[: n * GROUP] for n in range(1, TASKS + 1)]
        episodes = min(parts, key=lambda part: abs(sum(map(size, part)) - tokens))
    return with_random_returns(evened(episodes))


def evened(episodes: list[Episode]) -> list[Episode]:
    """Leave out last steps of the longest episodes until the number of sequences is a multiple of 8."""
    episodes = list(episodes)
    while sum(len(list(e.sequences())) for e in episodes) % 8:
        longest = max(range(len(episodes)), key=lambda i: episodes[i].length)
        episodes[longest] = replace(episodes[longest], steps=episodes[longest].steps[:-1])
    return episodes


def with_random_returns(episodes: list[Episode]) -> list[Episode]:
    """Give every episode a random return, all of it at its first step."""
    rng = np.random.default_rng(0)
    return [
        replace(
            e, steps=tuple(replace(s, reward=float(rng.normal()) if n == 0 else 0.0) for n, s in enumerate(e.steps))
        )
        for e in episodes
    ]


def size(episode: Episode) -> int:
    return sum(len(sequence) for sequence in episode.sequences())


# The contenders. Each is set up in a process of its own and then asked for one step at a time.

Step = Callable[[], float]  # makes one step and returns its seconds


def gentax_step(folder: Path, episodes: list[Episode], precision: str, **_: Any) -> tuple[Step, dict[str, Any]]:
    """Set up gentax as `gentax.training.train` does."""
    import torch

    from gentax.core.process import keep_freed_memory
    from gentax.models.device import has_native_bf16
    from gentax.policies.local import load_local_policy
    from gentax.rollouts import RolloutConfig
    from gentax.training.config import PolicyGradientConfig, TrainConfig
    from gentax.training.learner import learner_of
    from gentax.training.policy_gradient import update
    from gentax.training.rewards import rewards_of

    keep_freed_memory()
    config = TrainConfig(
        algorithm=PolicyGradientConfig(beta=KL), rollout=RolloutConfig(temperature=1.0), precision=precision
    )
    learner, reference = learner_of(load_local_policy(folder), config), load_local_policy(folder).model
    optimizer = torch.optim.Adam(learner.parameters, lr=RATE, fused=True)
    first: list[np.ndarray] = []
    optimizer.register_step_pre_hook(lambda *_: None if first else first.append(gradient(learner.model)))

    def step() -> float:
        begun = time.perf_counter()
        rewards = rewards_of(episodes, config.reward)
        report.update(update(learner, reference, optimizer, episodes, rewards, config, "the benchmark"))
        return time.perf_counter() - begun

    report: dict[str, float] = {}
    step()
    used = "bf16" if precision == "auto" and has_native_bf16("cpu") else "fp32" if precision == "auto" else precision
    computed = report["computed_tokens"] / report["learned_tokens"]
    return step, {"gradient": first[0], "computed": computed, "note": f"arithmetic in {used}"}


def trl_step(
    folder: Path, episodes: list[Episode], precision: str, *, scratch: str, same_allocator: bool
) -> tuple[Step, dict[str, Any]]:
    """Set up TRL as it comes, or the fastest of several tuned trainers."""
    from gentax.core.process import keep_freed_memory

    if same_allocator:
        keep_freed_memory()
    sequences = [sequence for episode in episodes for sequence in episode.sequences()]
    best: tuple[float, int, Step, np.ndarray] | None = None
    tried = {}
    even = [n for n in range(8, 65, 8) if len(sequences) % n == 0]
    near = {min(even, key=lambda n: abs(n - wanted)) for wanted in BATCHES}
    for per_device in [8] if precision == "default" else sorted(near):
        step, first = trl_trainer(folder, episodes, precision, per_device, scratch)
        seconds = tried[per_device] = min(step(), step())
        if best is None or seconds < best[0]:
            best = (seconds, per_device, step, first)
    assert best is not None
    prompts = [int(np.flatnonzero(s.sampled_T)[0]) for s in sequences]
    wide = max(prompts) + max(len(s) - p for s, p in zip(sequences, prompts, strict=True))
    computed = wide * len(sequences) / sum(map(len, sequences))
    note = f"batch {best[1]}; tried " + ", ".join(f"{n}: {s:.2f} s" for n, s in tried.items())
    return best[2], {"gradient": best[3], "computed": computed, "note": note}


def trl_trainer(
    folder: Path,
    episodes: list[Episode],
    precision: str,
    per_device: int,
    scratch: str,
    device: str = "cpu",
    dtype: str = "float32",
    adapters: Any = None,
    group: int = GROUP,
) -> tuple[Step, np.ndarray]:
    """Set up one trainer and make its first step; return its later steps and its first gradient.

    Args:
        folder: the model.
        episodes: what is learned from.
        precision: `default`, for what GRPOConfig gives unasked, `fp32` or `bf16`.
        per_device: sequences in a forward pass.
        scratch: a folder for TRL.
        device: where.
        dtype: of the weights.
        adapters: a `LoraConfig` of peft, for what is trained instead of all weights.
        group: episodes on each task.
    """
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from gentax.training.config import PolicyGradientConfig, RewardConfig
    from gentax.training.policy_gradient import compute_advantages
    from gentax.training.rewards import rewards_of

    advantages = compute_advantages(episodes, rewards_of(episodes, RewardConfig()), PolicyGradientConfig())
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    rows = []
    # With GRPO all steps of an episode have the same advantage.
    sequences = [(s, gain[0]) for e, gain in zip(episodes, advantages, strict=True) for s in e.sequences()]
    for sequence, advantage in sequences:
        start = int(np.flatnonzero(sequence.sampled_T)[0])
        rows.append(
            {
                "prompt_ids": sequence.ids_T[:start].tolist(),
                "completion_ids": sequence.ids_T[start:].tolist(),
                "logprobs": sequence.logprobs_T[start:].tolist(),
                "env_mask": sequence.sampled_T[start:].astype(int).tolist(),
                "advantage": float(advantage),
            }
        )

    def rollout(prompts: list[str], _: Any) -> dict[str, list[Any]]:
        assert prompts == [str(i // group) for i in range(len(rows))]  # the whole batch, in order
        return {key: [row[key] for row in rows] for key in rows[0]}

    class Trainer(GRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            batch = super()._generate_and_score_completions(inputs)
            # TRL takes the mean of 8 neighbours from a reward; the steps of an episode are no group.
            return batch | {"advantages": torch.tensor([row["advantage"] for row in rows])}

    seconds: list[float] = []
    first: list[np.ndarray] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begun = time.perf_counter()

        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            if not first:  # in a step that is not timed
                first.append(gradient(model))

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.begun)

    tuned = {} if precision == "default" else {"bf16": precision == "bf16", "gradient_checkpointing": False}
    args = GRPOConfig(
        output_dir=f"{scratch}/trl",
        use_cpu=device == "cpu",
        **tuned,
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=len(rows) // per_device,
        num_generations=group,
        max_steps=1,
        beta=KL,
        use_bias_correction_kl=False,  # the k3 estimator as it is, on both sides
        epsilon=CLIP,
        temperature=1.0,
        loss_type="dapo",
        scale_rewards="none",
        learning_rate=RATE,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        weight_decay=0.0,
        shuffle_dataset=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model=model,
        reward_funcs=lambda advantage, **_: advantage,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": [str(i) for i in range(len(rows) // group)]}),
        processing_class=tokenizer,
        callbacks=[Clock()],
        rollout_func=rollout,
        peft_config=adapters,
    )
    trainer.remove_callback(PrinterCallback)

    def step() -> float:
        trainer.train()
        return seconds[-1]

    step()
    return step, first[0]


def gradient(model: Any) -> np.ndarray:
    """Return the gradient of all parameters as one vector."""
    return np.concatenate([p.grad.flatten().float().cpu().numpy() for p in model.parameters() if p.grad is not None])


def trl_version() -> str | None:
    """Return the version of TRL; None where it is not installed."""
    try:
        return version("trl")
    except PackageNotFoundError:
        return None


def quiet() -> None:
    """Turn off the progress bars and the warnings of deprecation of other packages."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # `rollout_func` warns that it is experimental
    warnings.filterwarnings("ignore", category=FutureWarning)
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def serve(pipe: Connection, setup: Callable[..., tuple[Step, dict[str, Any]]], kwargs: dict[str, Any]) -> None:
    """Run a contender: answer each request with the seconds of a step."""
    quiet()
    episodes = pickle.loads(Path(kwargs["scratch"], "episodes").read_bytes())
    step, facts = setup(episodes=episodes, **kwargs)
    pipe.send(facts)
    while pipe.recv():
        pipe.send(step())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="timed steps of each contender")
    parser.add_argument("--context", default="full", help='how the batch was played: "full", "window(1)", …')
    parser.add_argument("--tokens", type=int, default=25000, help="tokens in the batch; 0 for those of all 16 tasks")
    parser.add_argument("--same-allocator", action="store_true", help="let TRL's processes keep freed memory too")
    args = parser.parse_args()

    contenders: dict[str, tuple[Callable[..., Any], str]] = {
        "gentax fp32": (gentax_step, "fp32"),
        "gentax auto": (gentax_step, "auto"),
    }
    if peer := trl_version():
        contenders |= {f"TRL {peer} {name}": (trl_step, name) for name in ("default", "fp32", "bf16")}
    else:
        print(f"TRL is not installed, so gentax is timed alone. Its side of the comparison: {INSTALL}")

    quiet()
    with tempfile.TemporaryDirectory() as scratch:
        folder, trained = model_folder(Path(scratch))
        episodes = play_batch(folder, trained, args.context, args.tokens)
        (Path(scratch) / "episodes").write_bytes(pickle.dumps(episodes))
        sampled = sum((episode.written or 0) for episode in episodes)
        print(
            f"{'the model that ships with gentax' if trained else 'an untrained model'}, "
            f"context {args.context}, {sum(map(size, episodes))} tokens, {sampled} of them sampled, in "
            f"{sum(len(list(episode.sequences())) for episode in episodes)} sequences of {len(episodes)} episodes"
        )
        print(", ".join(f"{name} {version(name)}" for name in ("torch", "transformers")), f"{os.cpu_count()} cores")
        spawn = multiprocessing.get_context("spawn")
        pipes: dict[str, Connection] = {}
        facts: dict[str, dict[str, Any]] = {}
        for name, (setup, precision) in contenders.items():  # one after the other: setting up is timed too (`tried`)
            kwargs = {"folder": folder, "precision": precision, "scratch": scratch}
            kwargs["same_allocator"] = args.same_allocator
            pipes[name], theirs = spawn.Pipe()
            spawn.Process(target=serve, args=(theirs, setup, kwargs), daemon=True).start()
            theirs.close()
            facts[name] = pipes[name].recv()
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        order = np.random.default_rng(0)
        for _ in range(args.repeats):
            for name in order.permutation(list(contenders)):
                pipes[name].send(True)
                seconds[name].append(pipes[name].recv())
        for pipe in pipes.values():
            pipe.send(False)

    base = facts["gentax fp32"]["gradient"]
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        f"\n{'':16}{'s/step':>9}{'range':>14}{'computed':>10}{'gentax fp32 is':>16}{'gentax auto is':>16}{'cosine':>10}"
    )
    for name, values in seconds.items():
        other = facts[name]["gradient"]
        cosine = float(base @ other / np.linalg.norm(base) / np.linalg.norm(other))
        ratios = "".join(f"{middle[name] / middle[ours]:15.2f}x" for ours in ("gentax fp32", "gentax auto"))
        spread = f"{min(values):.2f}-{max(values):.2f}"
        print(f"{name:16}{middle[name]:9.2f}{spread:>14}{facts[name]['computed']:9.2f}x{ratios}{cosine:10.5f}")
    print("computed: tokens that pass through the model, padding included, over tokens of the batch")
    print("cosine: of the first gradient to that of gentax fp32\n")
    for name in contenders:
        print(f"{name}: {facts[name]['note']}")


if __name__ == "__main__":
    main()

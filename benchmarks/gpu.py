"""Playing and learning on one GPU, beside what the device can do: random weights at 0.5 B, 1.5 B and 8 B.

    python benchmarks/gpu.py [--sizes 0.5B 1.5B 8B] [--json gpu.json]
    python benchmarks/gpu.py --tiny                 # the same code on a CPU in seconds, to see that it runs

It has not been run on a GPU yet: no figure of this project comes from it, and its tables are to be read as untried.

Decoding: `--written` tokens of each of several batches of rows after prompts of 512 different tokens, by
`gentax.models.decoding` in bf16 (on CUDA each token is a recorded graph). Reading the prompts is timed apart. The
roofline of a token: the weights (without the table of embeddings, of which a few rows are read) and every row's keys
and values pass through memory once, or the products through the arithmetic units, whichever takes longer.

Learning: one `policy_gradient.update` on 64 sequences of 512 tokens, of which 128 are sampled, with KL to the start, in
bf16 arithmetic on fp32 weights; for 8 B, whose fp32 state does not fit one device, adapters of rank 16. Nothing is
shared between the sequences, so the gain of shared beginnings (see `training_step.py`) is not in it. The roofline: 2 N
operations a token for each forward pass and for each half of a backward pass, N being the weights outside the table of
embeddings: 6 N to learn, 4 N with adapters, and 2 N for the reference. Attention is not counted.
TRL, where it is installed, takes the same step (bf16, no checkpointing of activations, 8 sequences at a time); not at
8 B.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_step import CLIP, GROUP, KL, RATE, quiet, trl_trainer

from gentax.core import Episode, Outcome, Task
from gentax.core.episode import Step, Tokens
from gentax.models.decoding import Decoder
from gentax.models.loading import BASE
from gentax.models.requests import SamplingParams, SamplingRequest
from gentax.policies.local import LocalPolicy
from gentax.training.learner import learner_of
from gentax.training.policy_gradient import update
from gentax.training.recipe import Algorithm, Lora, Recipe

QWEN = {"vocab_size": 151936, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6}
SIZES: dict[str, tuple[str, dict[str, Any]]] = {  # those of Qwen2.5-0.5B, Qwen2.5-1.5B and Qwen3-8B
    "0.5B": ("qwen2", {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                       "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "1.5B": ("qwen2", {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
                       "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "8B": ("qwen3", {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "head_dim": 128,
                     "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False}),
    "tiny": ("qwen2", {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 2048,
                       "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}),
}  # fmt: skip
WITH_ADAPTERS = ("8B",)
# Dense bf16 operations a second and bytes a second from memory, as the makers state them for the SXM boards.
DEVICES = {"H200": (989e12, 4.8e12), "H100": (989e12, 3.35e12), "A100": (312e12, 2.04e12)}


@dataclass(frozen=True)
class Load:
    """What is timed."""

    batches: tuple[int, ...] = (1, 8, 32, 128)
    prompt: int = 512
    written: int = 128
    sequences: int = 64
    learned: int = 128  # sampled tokens of a sequence
    repeats: int = 3


TINY = Load(batches=(1, 4), prompt=48, written=8, sequences=GROUP, learned=16, repeats=1)


def build(size: str, device: torch.device) -> Any:
    """Return a causal model with random weights, in bf16 (fp32 on a CPU)."""
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, shape = SIZES[size]
    config = AutoConfig.for_model(kind, **(QWEN | shape))
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=_dtype(device)).eval()


def decode(model: Any, load: Load, peak: tuple[float, float] | None) -> list[dict[str, float]]:
    """Time the decoder by batch; return a row for each."""
    rows = []
    weights = _weights(model)
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    of_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * model.dtype.itemsize
    for batch in load.batches:
        decoder = Decoder(model)
        read, whole = [], []
        for repeat in range(load.repeats + 1):
            for written, times in ((1, read), (load.written + 1, whole)):
                rng = np.random.default_rng(repeat)
                prompts = rng.integers(6, 2000, (batch, load.prompt)).astype(np.int32)
                asks = [SamplingRequest(n, prompts[n], SamplingParams(1.0), rng.random(written)) for n in range(batch)]
                decoder.forget()
                begun = _now()
                decoder.sample(asks, stop=lambda ids: False)
                if repeat:  # the first records the graphs
                    times.append(_now() - begun)
        seconds = statistics.median(whole) - statistics.median(read)
        row = {
            "batch": batch,
            "prompt_tokens_per_s": batch * load.prompt / statistics.median(read),
            "tokens_per_s": batch * load.written / seconds,
        }
        if peak is not None:
            cached = batch * (load.prompt + load.written / 2) * of_token
            least = max((weights * model.dtype.itemsize + cached) / peak[1], 2 * weights * batch / peak[0])
            row["of_roofline"] = row["tokens_per_s"] * least / batch
        rows.append(row)
    return rows


def learn(model: Any, tokenizer: Any, size: str, load: Load, peak: tuple[float, float] | None) -> dict[str, float]:
    """Time one update by gentax, model already on its device; leaves the model changed."""
    adapters = size in WITH_ADAPTERS
    recipe = Recipe(algorithm=Algorithm(kl=KL, clip=CLIP), lora=Lora() if adapters else None)
    learner = learner_of(LocalPolicy(model, tokenizer), recipe)
    reference = learner.start_model()
    if reference is None:
        reference = build(size, model.device)
    optimizer = torch.optim.Adam(learner.parameters, lr=RATE, fused=True)
    played = episodes(load)
    rewards = [np.array([step.reward for step in episode.steps]) for episode in played]
    seconds, report = [], {}
    for _ in range(load.repeats + 1):
        begun = _now()
        report = update(learner, reference, optimizer, played, rewards, recipe, "the benchmark", temperature=1.0)
        seconds.append(_now() - begun)
    middle = statistics.median(seconds[1:])
    found = {
        "s_per_step": middle,
        "tokens_per_s": report["learned_tokens"] / middle,
        "padding": 1 - report["distinct_tokens"] / report["computed_tokens"],
    }
    if peak is not None:
        operations = (4 if adapters else 6) + 2
        found["of_roofline"] = operations * _weights(model) * found["tokens_per_s"] / peak[0]
    return found


def trl(model: Any, tokenizer: Any, load: Load) -> float:
    """Return the seconds of TRL's step on the same sequences."""
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(f"{scratch}/model")
        tokenizer.save_pretrained(f"{scratch}/model")
        step, _ = trl_trainer(
            Path(scratch, "model"), episodes(load), "bf16", 8, scratch, device=torch.device(model.device).type
        )
        return statistics.median(step() for _ in range(load.repeats))


def episodes(load: Load) -> list[Episode]:
    """Make episodes of one step: random tokens, random returns."""
    rng = np.random.default_rng(0)
    made = []
    for n in range(load.sequences):
        prompt, sampled = (
            rng.integers(6, 2000, count).astype(np.int32) for count in (load.prompt - load.learned, load.learned)
        )
        logprobs = np.full(load.learned, -np.log(2000), np.float32)
        tokens = Tokens(False, prompt, sampled, logprobs)
        step = Step("", "", "", float(rng.normal()), True, written=load.learned, tokens=tokens)
        made.append(Episode(Task("none", "none", "train", n // GROUP), n % GROUP, "", (step,), Outcome.SUCCESS))
    return made


def _weights(model: Any) -> int:
    """Return how many numbers a token is multiplied with: all but the table of embeddings, and the head in any case."""
    tied = model.config.tie_word_embeddings
    return sum(p.numel() for p in model.parameters()) - (0 if tied else model.get_input_embeddings().weight.numel())


def _dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak(device: torch.device, args: argparse.Namespace) -> tuple[float, float] | None:
    """Return operations and bytes a second of the device, or None where they are not known."""
    if args.flops and args.bandwidth:
        return args.flops, args.bandwidth
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((figures for known, figures in DEVICES.items() if known in name), None)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["0.5B", "1.5B", "8B"])
    parser.add_argument("--tiny", action="store_true", help="a very small model and load, on whatever is there")
    parser.add_argument("--flops", type=float, help="bf16 operations a second of a device not known here")
    parser.add_argument("--bandwidth", type=float, help="its bytes a second from memory")
    parser.add_argument("--json", help="write the figures to this file too")
    args = parser.parse_args(argv)

    from transformers import AutoTokenizer

    quiet()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not args.tiny:
        parser.error("there is no GPU here; --tiny runs the same code on the CPU")
    sizes, load = (["tiny"], TINY) if args.tiny else (args.sizes, Load())
    peak = _peak(device, args)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    try:
        peer: str | None = version("trl")
    except PackageNotFoundError:
        peer = None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {version('torch')}, transformers {version('transformers')}, TRL {peer or 'not installed'}")
    figures: dict[str, Any] = {"device": name, "torch": version("torch"), "sizes": {}}
    for size in sizes:
        model = build(size, device)
        found: dict[str, Any] = {"decode": decode(model, load, peak)}
        if peer and size not in WITH_ADAPTERS:
            found["trl_s_per_step"] = trl(model, tokenizer, load)
        found["learn"] = learn(model, tokenizer, size, load, peak)
        figures["sizes"][size] = found
        print(f"\n{size}\n{'rows':>8}{'prompt tokens/s':>18}{'tokens/s':>12}{'of roofline':>13}")
        for row in found["decode"]:
            print(
                f"{row['batch']:8}{row['prompt_tokens_per_s']:18.0f}{row['tokens_per_s']:12.0f}"
                f"{_share(row.get('of_roofline')):>13}"
            )
        made = found["learn"]
        line = f"learning: {made['s_per_step']:.3f} s a step, {made['tokens_per_s']:.0f} tokens/s"
        line += f", {_share(made.get('of_roofline'))} of the roofline, {made['padding']:.1%} padding"
        if "trl_s_per_step" in found:
            line += f"; TRL {found['trl_s_per_step']:.3f} s: {found['trl_s_per_step'] / made['s_per_step']:.2f}x"
        print(line)
        del model
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


if __name__ == "__main__":
    main()

"""Playing and learning on one GPU, beside what the device can do and beside what people use otherwise; random weights.

Sizes: 0.5 B, 1.5 B and 8 B in the shapes of Qwen2.5 and Qwen3, and the 270 M of Gemma 3, which attends to windows.

Decoding: `written` tokens of each of several batches of rows after prompts of 512 different tokens, by the decoder that
a policy of this model plays with, in bf16 (on CUDA each token of the lean decoder is a recorded graph). Reading the
prompts is timed apart. The roofline of a token: the weights (without the table of embeddings, of which a few rows are
read) and every row's keys and values pass through memory once, or the products through the arithmetic units, whichever
takes longer. At one batch the model's own `generate` does the same.

Learning: one `policy_gradient.update` on 64 sequences of 512 tokens, of which 128 are sampled, with KL to the start, in
bf16 arithmetic on fp32 weights; for 8 B, whose fp32 state does not fit one device, adapters of rank 16. Nothing is
shared between the sequences, so the gain of shared prefixes (see `training_step.py`) is not in it. The roofline: 2 N
operations a token for each forward pass and for each half of a backward pass, N being the weights outside the table of
embeddings: 6 N to learn, 4 N with adapters, and 2 N for the reference. Attention is not counted.
TRL, where it is installed, takes the same step (bf16, no checkpointing of activations).

Used by `gpu_runbook.py`, which is the script.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from model_rates import peft_config
from stock_generate import StockDecoder
from training_step import GROUP, KL, RATE, trl_trainer

from gentax.core import Episode, Outcome, Task
from gentax.core.episode import Step, Tokens
from gentax.models.options import SamplingParams, SamplingRequest
from gentax.policies.local import LocalPolicy
from gentax.rollouts import RolloutConfig
from gentax.training.config import LoraConfig, PolicyGradientConfig, TrainConfig
from gentax.training.learner import learner_of
from gentax.training.policy_gradient import update

QWEN = {"vocab_size": 151936, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6}
SIZES: dict[str, tuple[str, dict[str, Any]]] = {  # those of Qwen2.5-0.5B, Qwen2.5-1.5B and Qwen3-8B
    "0.5B": ("qwen2", {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                       "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "1.5B": ("qwen2", {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
                       "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "8B": ("qwen3", {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "head_dim": 128,
                     "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False}),
    "gemma": ("gemma3_text", {"hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18, "head_dim": 256,
                              "num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": 262144,
                              "sliding_window": 512, "tie_word_embeddings": True}),
    "tiny": ("qwen2", {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 2048,
                       "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}),
}  # fmt: skip
WITH_ADAPTERS = {"8B": LoraConfig()}
TRL_ROWS = {"8B": 2}  # sequences that TRL takes at a time, where 8 would not fit
# Dense bf16 operations a second and bytes a second from memory, as the makers state them for the SXM boards.
DEVICES = {"H200": (989e12, 4.8e12), "H100": (989e12, 3.35e12), "A100": (312e12, 2.04e12)}


@dataclass(frozen=True)
class Load:
    """What is timed."""

    batches: tuple[int, ...] = (1, 8, 32, 128)
    stock: int = 32  # the batch at which `generate` is timed too
    prompt: int = 512
    written: int = 128
    sequences: int = 64
    learned: int = 128  # sampled tokens of a sequence
    repeats: int = 3


TINY = Load(batches=(1, 4), stock=4, prompt=48, written=8, sequences=GROUP, learned=16, repeats=1)


def build(size: str, device: torch.device) -> Any:
    """Return a causal model with random weights, in bf16 (fp32 on a CPU)."""
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, shape = SIZES[size]
    config = AutoConfig.for_model(kind, **(QWEN | shape))
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=_dtype(device)).eval()


def decode(model: Any, tokenizer: Any, load: Load, peak: tuple[float, float] | None) -> list[dict[str, Any]]:
    """Time the policy's decoder by batch, and `generate` at one; return a row for each."""
    rows = []
    ours, stock = LocalPolicy(model, tokenizer).decoder, StockDecoder(model)
    of_token = _cached_bytes(model)
    weights = _weights(model)
    for batch in load.batches:
        for decoder in (ours, stock) if batch == load.stock else (ours,):
            read, whole = _decode(decoder, batch, load)
            row = {
                "decoder": "generate" if decoder is stock else type(decoder).__name__,
                "batch": batch,
                "prompt_tokens_per_s": batch * load.prompt / read,
                "tokens_per_s": batch * load.written / max(whole - read, 1e-9),
            }
            if peak is not None:
                cached = batch * (load.prompt + load.written / 2) * of_token
                least = max((weights * model.dtype.itemsize + cached) / peak[1], 2 * weights * batch / peak[0])
                row["of_roofline"] = row["tokens_per_s"] * least / batch
            rows.append(row)
    return rows


def _decode(decoder: Any, batch: int, load: Load) -> tuple[float, float]:
    """Return the seconds of reading the prompts and writing one token, and of writing `written` more."""
    read: list[float] = []
    whole: list[float] = []
    for repeat in range(load.repeats + 1):
        for written, times in ((1, read), (load.written + 1, whole)):
            rng = np.random.default_rng(repeat)
            prompts = rng.integers(6, 2000, (batch, load.prompt)).astype(np.int32)
            params = SamplingParams(1.0, max_new_tokens=written)
            asks = [SamplingRequest(n, prompts[n], params, rng.random(written)) for n in range(batch)]
            decoder.clear_cache()
            begun = _now()
            decoder.sample(asks, stop=lambda ids: False)
            if repeat:  # the first records the graphs
                times.append(_now() - begun)
    return statistics.median(read), statistics.median(whole)


def _cached_bytes(model: Any) -> int:
    """Return the bytes that a token's keys and values take, windows not considered."""
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * config.num_key_value_heads * head * model.dtype.itemsize


def learn(model: Any, tokenizer: Any, size: str, load: Load, peak: tuple[float, float] | None) -> dict[str, float]:
    """Time one update by gentax, model already on its device; leaves the model changed."""
    adapters = WITH_ADAPTERS.get(size)
    config = TrainConfig(algorithm=PolicyGradientConfig(beta=KL), rollout=RolloutConfig(temperature=1.0), lora=adapters)
    learner = learner_of(LocalPolicy(model, tokenizer), config)
    reference = learner.start_model()
    if reference is None:
        reference = build(size, model.device)
    optimizer = torch.optim.Adam(learner.parameters, lr=RATE, fused=True)
    played = episodes(load)
    rewards = [np.array([step.reward for step in episode.steps]) for episode in played]
    seconds, report = [], {}
    for _ in range(load.repeats + 1):
        begun = _now()
        report = update(learner, reference, optimizer, played, rewards, config, "the benchmark")
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


def trl(model: Any, tokenizer: Any, size: str, load: Load) -> float:
    """Return the seconds of TRL's step on the same sequences."""
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(f"{scratch}/model")
        tokenizer.save_pretrained(f"{scratch}/model")
        rows, device = TRL_ROWS.get(size, 8), torch.device(model.device).type
        lora = WITH_ADAPTERS.get(size)
        kind = {"dtype": "bfloat16", "adapters": peft_config(lora)} if lora else {}
        step, _ = trl_trainer(Path(scratch, "model"), episodes(load), "bf16", rows, scratch, device, **kind)
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


def peaks_of(device: torch.device) -> tuple[float, float] | None:
    """Return operations and bytes a second of the device, or None where they are not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((figures for known, figures in DEVICES.items() if known in name), None)


def measure(
    size: str,
    device: torch.device,
    load: Load,
    peak: tuple[float, float] | None,
    tokenizer: Any,
    peer: bool,
    found: dict[str, Any],
    keep: Callable[[], None],
) -> None:
    """Take the measurements of a size that `found` does not have; call `keep` after each.

    One that fails, for want of memory for instance, is noted with the last line of its fault: the time on a borrowed
    device is better spent on the others.
    """
    parts: dict[str, Callable[[Any], Any]] = {
        "decode": lambda model: decode(model, tokenizer, load, peak),
        "trl_s_per_step": lambda model: trl(model, tokenizer, size, load),
        "learn": lambda model: learn(model, tokenizer, size, load, peak),  # last: the model is another afterwards
    }
    if not peer:
        del parts["trl_s_per_step"]
    model: Any = None
    for part, take in parts.items():
        if part in found:
            continue
        try:
            model = build(size, device) if model is None else model
            found[part] = take(model)
        except Exception as fault:
            traceback.print_exc()
            found[part] = {"fault": f"{type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}"}
        keep()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def table(found: dict[str, Any]) -> str:
    """Write the figures of all sizes for a person."""
    lines = [f"{'':12}{'decoder':>16}{'rows':>6}{'prompt tokens/s':>17}{'tokens/s':>11}{'of roofline':>13}"]
    for size, of in found.items():
        rows = of.get("decode", [])
        if isinstance(rows, dict):
            lines.append(f"{size:12}{rows['fault']}")
            continue
        lines += [
            f"{size:12}{row['decoder']:>16}{row['batch']:6}{row['prompt_tokens_per_s']:17.0f}{row['tokens_per_s']:11.0f}"
            f"{_share(row.get('of_roofline')):>13}"
            for row in rows
        ]
    lines += [
        "",
        f"{'':12}{'learning':>16}{'s/step':>9}{'tokens/s':>11}{'of roofline':>13}{'TRL s/step':>12}{'gain':>8}",
    ]
    for size, of in found.items():
        made, peer = of.get("learn"), of.get("trl_s_per_step", "-")
        theirs = peer["fault"] if isinstance(peer, dict) else f"{peer:12.3f}" if isinstance(peer, float) else peer
        if made is None or "fault" in made:
            lines.append(f"{size:12}{made['fault'] if made else 'not yet'}; TRL {theirs.strip()}")
            continue
        gain = f"{peer / made['s_per_step']:7.2f}x" if isinstance(peer, float) else ""
        kind = "LoRA" if size in WITH_ADAPTERS else "all weights"
        lines.append(
            f"{size:12}{kind:>16}{made['s_per_step']:9.3f}{made['tokens_per_s']:11.0f}"
            f"{_share(made.get('of_roofline')):>13}{theirs:>12}{gain}"
        )
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"

"""Where and how precisely a model computes: its device, the memory there, the context length, and precision.

Bytes are computed from shapes before anything is loaded, exactly for what they count. Not counted: logits, activations
and the allocator's own memory. 1 GB is 10⁹ bytes.

bf16 numbers around 0.02 are 1.2e-4 apart, while an RL step moves a weight by about the learning rate, 1e-6. Rounded to
nearest, a policy would not change for dozens of steps, and much of a merged adapter would be lost. Weights are
therefore rounded up or down with probability by distance (stochastic rounding, arXiv 1502.02551), which is right on
average. The random numbers depend on the weight's name alone, so the result is the same in every process and in a
resumed run.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
import torch

from gentax.core import UsageError, stable_seed, unknown
from gentax.models.options import PRECISIONS, check_device


def resolve_device(choice: str, local_rank: int = 0, processes: int = 1) -> torch.device:
    """Return the device that `choice` names.

    Args:
        choice: `cpu`, `cuda`, `cuda:N`, or `auto`, which is a GPU where there is one. Each of several processes on a
            machine takes the GPU of its rank.
        local_rank: of this process on its machine.
        processes: how many there are in all.

    Raises:
        UsageError: an unknown or missing device, or one GPU named for several processes.
    """
    check_device(choice)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if choice == "cpu" or (choice == "auto" and not count):
        return torch.device("cpu")
    if not count:
        raise UsageError(f"device {choice} is not there: PyTorch finds no GPU; 'cpu' always works")
    if ":" in choice and processes > 1:
        raise UsageError(f"device {choice} is one GPU, and there are {processes} processes; 'cuda' gives each its own")
    number = int(choice.partition(":")[2]) if ":" in choice else local_rank
    if number >= count:
        raise UsageError(f"device cuda:{number} is not there: this machine has {count} GPUs, numbered from 0")
    return torch.device("cuda", number)


RESERVED_SHARE = 0.1  # share of memory left for what is not counted
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_USED = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")


def kv_cache_bytes(config: Any, tokens: int, dtype: torch.dtype = torch.bfloat16) -> int:
    """Estimate the bytes of keys and values of one row of `tokens` tokens: full length in every attention layer."""
    text = config.get_text_config(decoder=True)
    layers = text.num_hidden_layers
    if kinds := getattr(text, "layer_types", None):
        layers = sum("attention" in kind and "linear" not in kind for kind in kinds)
    heads = getattr(text, "num_attention_heads", None)
    if not heads:  # a recurrent model
        return 0
    if (rank := getattr(text, "kv_lora_rank", None)) and getattr(text, "qk_rope_head_dim", None):
        width = rank + text.qk_rope_head_dim  # MLA: the latent and the rotated part of the keys
    else:
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
        width = 2 * (getattr(text, "num_key_value_heads", None) or heads) * head_dim
    return layers * tokens * width * dtype.itemsize


def available_memory(device: torch.device | str) -> int:
    """Return the bytes that can still be allocated on a device.

    On a GPU CUDA's free memory plus what PyTorch has reserved and not allocated; on a CPU the system's available
    memory, within the limit of the control group (a container's).
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(psutil.virtual_memory().available, _group_memory())


def check_fits_memory(needed: int, device: torch.device | str, what: str) -> None:
    """Raise UsageError, with the numbers, when `needed` bytes are more than a device has left."""
    if needed > (there := available_memory(device)):
        raise UsageError(
            f"{what} takes {needed / 1e9:.1f} GB, and {device} has {there / 1e9:.1f} GB left; "
            "a dtype of fewer bytes, a larger device or a smaller model would fit"
        )


def max_batch_size(config: Any, cache: int, device: torch.device | str, most: int = 128, allocated: int = 0) -> int:
    """Return how many rows fit into memory with the loaded weights; at least 1.

    Args:
        config: transformers' configuration.
        cache: bytes of one row's cache at its longest. Its logits (vocabulary × 4 bytes, twice) are added.
        device: where the model is, already loaded.
        most: an upper limit.
        allocated: bytes already allocated for rows.
    """
    row = cache + 8 * config.get_text_config(decoder=True).vocab_size
    return max(1, min(most, int((1 - RESERVED_SHARE) * (available_memory(device) + allocated)) // max(1, row)))


def _group_memory() -> int:
    for limit, used in zip(_LIMITS, _USED, strict=True):
        try:
            left = int(Path(limit).read_text()) - int(Path(used).read_text())
            stat = (Path(limit).parent / "memory.stat").read_text(encoding="ascii").split()
            pairs = dict(zip(stat[::2], stat[1::2], strict=True))
            return max(0, left + int(pairs.get("inactive_file", 0)))  # pages of files make room when they must
        except (OSError, ValueError):  # no such group, or one without a limit
            continue
    return 1 << 62


DEFAULT_CONTEXT_LENGTH = 8192  # for models without positions of their own: recurrent ones, and those with ALiBi


def context_length(config: Any) -> int:
    """Return how many tokens a sequence may have.

    Models with long RoPE are used up to their original context, since a cache is not valid beyond it (see
    `long_rope_threshold`).
    """
    text = config.get_text_config(decoder=True)
    most = next(
        (n for name in ("max_position_embeddings", "n_positions") if (n := getattr(text, name, None))),
        DEFAULT_CONTEXT_LENGTH,
    )
    return min(most, long_rope_threshold(config) or most)


def forward_parameters(model: Any) -> Collection[str]:
    """Return the names of the arguments that a model's forward pass takes; models differ in them."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # adapters wrap the signature
    return inspect.signature(inner.forward).parameters.keys()


def long_rope_threshold(config: Any) -> int | None:
    """Return the length beyond which a model changes the frequencies of all positions (long RoPE); None for others."""
    text = config.get_text_config(decoder=True)
    own = getattr(text, "original_max_position_embeddings", None)
    rope_settings = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)
    lengths = [
        rope.get("original_max_position_embeddings") or own
        for rope in _ropes(rope_settings)
        if rope.get("rope_type") == "longrope"
    ]
    return min(filter(None, lengths), default=None)


def _ropes(parameters: Any) -> list[dict[str, Any]]:
    """Return the settings of all rotary embeddings: some models have one for each layer type."""
    if not isinstance(parameters, dict):
        return []
    return [parameters, *(inner for inner in parameters.values() if isinstance(inner, dict))]


def autocast_context(choice: str, device: Any) -> AbstractContextManager[Any]:
    """Return the context in which a forward pass runs. Weights, gradients and optimizer keep their own dtype.

    Args:
        choice: `bf16` (autocast), `fp32`, or `auto`: bf16 where the hardware multiplies it natively (half the time of a
            step on a CPU with AVX512-BF16 or AMX, several times the time on one without).
        device: of the model.
    """
    if choice not in PRECISIONS:
        raise unknown("precision", choice, PRECISIONS)
    kind = torch.device(device).type
    if choice == "fp32" or (choice == "auto" and not has_native_bf16(kind)):
        return nullcontext()
    return torch.autocast(kind, dtype=torch.bfloat16)


@contextmanager
def upcast_to_fp32(model: Any) -> Iterator[None]:
    """Compute `model` in fp32 meanwhile, whatever dtype its weights are stored in, without gradient.

    16-bit weights are widened: outside the layers for the whole time, in a layer only while it runs. This takes the
    memory of embeddings, head and one layer, not of a second model.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    inside = {id(x) for layer in layers for x in chain(layer.parameters(), layer.buffers())}
    stored: dict[Any, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def widen(part: Any, *_: Any) -> None:
        tensors = [x for x in chain(part.parameters(), part.buffers()) if part is not model or id(x) not in inside]
        stored[part] = [(x, x.data) for x in tensors if x.is_floating_point() and x.itemsize == 2]
        for x, data in stored[part]:
            x.data = data.float()

    def restore(part: Any, *_: Any) -> None:
        for x, data in stored.pop(part, ()):
            x.data = data

    hooks = [layer.register_forward_pre_hook(widen) for layer in layers]
    hooks += [layer.register_forward_hook(restore, always_call=True) for layer in layers]
    try:
        widen(model)
        with torch.no_grad():
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for part in list(stored):
            restore(part)


def has_native_bf16(kind: str) -> bool:
    """Return whether this device type multiplies bf16 in hardware."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        with suppress(OSError):  # the features of a CPU as Linux names them, on x86 and on Arm
            return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", Path("/proc/cpuinfo").read_text()) is not None
    return False


CHUNK_NUMEL = 1 << 24  # numbers rounded at a time, to bound the memory
FRACTION = 23  # bits of the fraction in fp32


@torch.no_grad()
def stochastic_round_(target: torch.Tensor, exact: torch.Tensor, name: str) -> None:
    """Copy `exact`, fp32, into `target`, rounded stochastically to its dtype.

    Args:
        target: written in place; an exact copy where it is fp32.
        exact: of the same shape, on the same device.
        name: of the weight, which seeds the random numbers.
    """
    if target.dtype is torch.float32:
        target.copy_(exact)
        return
    lost = FRACTION + round(math.log2(torch.finfo(target.dtype).eps))  # bits of the fraction that the target lacks
    chance = torch.Generator(exact.device).manual_seed(stable_seed("rounding", name) % (1 << 63))
    rows = max(1, CHUNK_NUMEL * len(exact) // max(1, exact.numel()))
    for rounded, part in zip(target.split(rows), exact.split(rows), strict=True):
        bits = torch.empty(part.shape, dtype=torch.int32, device=part.device).random_(1 << lost, generator=chance)
        # Carries into the kept bits in proportion to the dropped ones; floats are ordered like their bits.
        bits += part.contiguous().view(torch.int32)
        rounded.copy_(bits.bitwise_and_(-(1 << lost)).view(torch.float32))

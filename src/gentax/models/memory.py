"""Memory and context length: bytes of weights and KV cache, what a device has left, and how many tokens a model can
read.

Bytes are computed from shapes before anything is loaded, exactly for what they count. Not counted: logits, activations
and the allocator's own memory. 1 GB is 10⁹ bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import torch

from gentax.core import UsageError

RESERVED_SHARE = 0.1  # share of memory left for what is not counted
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_USED = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")


def model_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers, each once; it may be on the meta device."""
    seen = {id(x): x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers())}
    return sum(seen.values())


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
        held: bytes already allocated for rows.
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

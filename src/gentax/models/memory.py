"""Memory and context length: bytes of weights and KV cache, what a device has left, and how many tokens a model can
read.

Bytes are computed from shapes before anything is loaded, exactly for what they count. Not counted: logits, activations
and the allocator's own memory. 1 GB is 10⁹ bytes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from gentax.core import UsageError

RESERVED_SHARE = 0.1  # share of memory left for what is not counted
_RECURRENT = ("linear_attention", "mamba", "mamba2", "conv", "recurrent", "rwkv", "gated_deltanet", "moe", "mlp")
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_USED = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")


def model_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers, each once; it may be on the meta device."""
    seen = {id(x): x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers())}
    return sum(seen.values())


def kv_cache_bytes(config: Any, tokens: int, dtype: torch.dtype = torch.bfloat16) -> int:
    """Return the bytes of cache for one row of `tokens` tokens: full, sliding-window and recurrent layers.

    A recurrent state does not depend on `tokens`: heads × key width × value width in fp32 (gated delta nets, Mamba-2),
    or channels × state size (Mamba-1), plus the convolution's window.
    """
    text = _text(config)
    window = _get(text, "sliding_window", "attention_chunk_size") or tokens
    seen = {"full": tokens, "sliding": min(tokens, window), "recurrent": 0}
    kinds = _layers(config)
    cached = sum(seen[kind] for kind in kinds) * _per_token(config, dtype)
    both = getattr(text, "mamba_d_ssm", None) is not None  # attention and a state side by side in each layer
    return cached + (len(kinds) if both else kinds.count("recurrent")) * _state_bytes(text)


def available_memory(device: torch.device | str) -> int:
    """Return the bytes that can still be allocated on a device.

    On a GPU CUDA's free memory plus what PyTorch has reserved and not allocated; on a CPU the system's available
    memory, within the limit of the control group (a container's).
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(_system_memory(), _group_memory())


def check_fits_memory(needed: int, device: torch.device | str, what: str) -> None:
    """Raise UsageError, with the numbers, when `needed` bytes are more than a device has left."""
    if needed > (there := available_memory(device)):
        raise UsageError(
            f"{what} takes {needed / 1e9:.1f} GB, and {device} has {there / 1e9:.1f} GB left; "
            "a dtype of fewer bytes, a larger device or a smaller model would fit"
        )


def max_batch_size(config: Any, cache: int, device: torch.device | str, most: int = 128, held: int = 0) -> int:
    """Return how many rows fit into memory with the loaded weights; at least 1.

    Args:
        config: transformers' configuration.
        cache: bytes of one row's cache at its longest. Its logits (vocabulary × 4 bytes, twice) are added.
        device: where the model is, already loaded.
        most: an upper limit.
        held: bytes already allocated for rows.
    """
    row = cache + 8 * (_get(_text(config), "vocab_size") or 0)
    return max(1, min(most, int((1 - RESERVED_SHARE) * (available_memory(device) + held)) // max(1, row)))


def _text(config: Any) -> Any:
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def _get(config: Any, *names: str) -> Any:
    return next((value for name in names if (value := getattr(config, name, None)) is not None), None)


def _layers(config: Any) -> list[str]:
    """Return the kind of each layer's cache: `full`, `sliding` or `recurrent`."""
    text = _text(config)
    count = _get(text, "num_hidden_layers", "n_layer", "num_layers") or 0
    kinds = _get(text, "layer_types", "layers_block_type")
    if kinds is None:
        if not _heads(text):
            return ["recurrent"] * count
        if getattr(text, "use_sliding_window", True) and getattr(text, "sliding_window", None):
            return ["sliding"] * count
        return ["full"] * count
    return [_kind(str(kind)) for kind in kinds]


def _kind(kind: str) -> str:
    if "sliding" in kind or "chunked" in kind:
        return "sliding"
    return "recurrent" if kind in _RECURRENT else "full"


def _heads(text: Any) -> int:
    return _get(text, "num_attention_heads", "n_head", "num_heads") or 0


def _per_token(config: Any, dtype: torch.dtype) -> int:
    """Return the bytes of keys and values of a token in one attention layer."""
    text = _text(config)
    heads = _heads(text)
    if (rank := getattr(text, "kv_lora_rank", None)) and getattr(text, "qk_rope_head_dim", None):
        return (rank + text.qk_rope_head_dim) * dtype.itemsize  # MLA: the latent and the rotated part of the keys
    hidden = _get(text, "hidden_size", "n_embd", "d_model") or 0
    head = _get(text, "head_dim") or (hidden // heads if heads else 0)
    shared = 1 if getattr(text, "multi_query", False) else _get(text, "num_key_value_heads", "num_kv_heads") or heads
    return 2 * shared * head * dtype.itemsize


def _state_bytes(text: Any) -> int:
    """Return the bytes of one recurrent layer's state for one row."""
    keys, values = _get(text, "linear_num_key_heads"), _get(text, "linear_num_value_heads")
    if keys and values:  # gated delta net
        key, value = text.linear_key_head_dim, text.linear_value_head_dim
        conv = (2 * keys * key + values * value) * text.linear_conv_kernel_dim
        return 4 * (values * key * value + conv)
    state = _get(text, "mamba_d_state", "ssm_state_size", "state_size")
    if state:
        inner = _get(text, "mamba_d_ssm", "intermediate_size") or 0
        if (expand := _get(text, "mamba_expand", "expand")) is not None and not getattr(text, "mamba_d_ssm", None):
            inner = int(expand * (_get(text, "hidden_size") or 0))
        channels = inner + 2 * (_get(text, "mamba_n_groups", "n_groups") or 0) * state  # Mamba-2's B and C as well
        return 4 * (inner * state + channels * (_get(text, "mamba_d_conv", "conv_kernel") or 4))
    if (window := _get(text, "conv_L_cache")) is not None:
        return 4 * window * text.hidden_size
    return 4 * (_get(text, "hidden_size", "n_embd") or 0) * 4


def _system_memory() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # a system that does not say
        return 1 << 62


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
    given = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)
    lengths = [
        rope.get("original_max_position_embeddings") or own
        for rope in _ropes(given)
        if rope.get("rope_type") == "longrope"
    ]
    return min(filter(None, lengths), default=None)


def _ropes(parameters: Any) -> list[dict[str, Any]]:
    """Return the settings of all rotary embeddings: some models have one for each layer type."""
    if not isinstance(parameters, dict):
        return []
    return [parameters, *(inner for inner in parameters.values() if isinstance(inner, dict))]

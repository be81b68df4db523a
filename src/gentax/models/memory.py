"""How much memory there is, and how many conversations' keys and values fit in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

RESERVE = 0.1  # of a device's memory, left to what is not counted here
_GROUPS = (  # the limit and the use of a container, in versions 2 and 1 of control groups
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def kv_cache_bytes_per_token(config: Any, dtype: torch.dtype = torch.bfloat16) -> int:
    """Return the bytes that the keys and values of one token take, over all layers.

    Layers that keep less (a sliding window, a recurrent state) are counted as full ones.
    """
    config = config.get_text_config()
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * key_heads * head_dim * dtype.itemsize)


def available_memory(device: torch.device | str) -> int:
    """Return the bytes that can still be taken on a device; of a CPU, within the limit of the container we run in."""
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    found = [_available_here(), *(_left_of(*files) for files in _GROUPS)]
    return min(free for free in found if free is not None)


def parallel_rows(
    config: Any, tokens: int, device: torch.device | str, dtype: torch.dtype = torch.bfloat16, most: int = 128
) -> int:
    """Return how many rows of up to `tokens` tokens can be played at once on a device, at least 1 and `most` at most.

    A row's logits (vocabulary × 4 bytes, twice for sampling) are counted with its keys and values.
    """
    row = kv_cache_bytes_per_token(config, dtype) * tokens + 8 * config.get_text_config().vocab_size
    return max(1, min(most, int((1 - RESERVE) * available_memory(device)) // row))


def _available_here() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # no telling what others use


def _left_of(limit: str, used: str) -> int | None:
    try:
        return max(0, int(Path(limit).read_text()) - int(Path(used).read_text()))
    except (OSError, ValueError):  # no such file, or no limit
        return None

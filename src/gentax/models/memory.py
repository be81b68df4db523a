"""How much memory there is, and how much of it the keys and values of a conversation take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

_CGROUPS = (  # limit and use of a container, version 2 and 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def kv_cache_bytes_per_token(config: Any, dtype: torch.dtype) -> int:
    """Return the bytes that keys and values of one token take, over all layers.

    Layers that keep less (a sliding window, a recurrent state) are counted as full ones.
    """
    config = config.get_text_config()
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * key_heads * head_dim * dtype.itemsize)


def available_memory(device: torch.device) -> int:
    """Return the bytes that can still be had on a device; of a CPU, within the limit of the container we run in."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    found = [_read_meminfo()] + [_room(*files) for files in _CGROUPS]
    return min((free for free in found if free is not None), default=0)


def _read_meminfo() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # no telling what others use
    except (OSError, ValueError):
        return None


def _room(limit: str, used: str) -> int | None:
    try:
        return max(0, int(Path(limit).read_text()) - int(Path(used).read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return None

"""Where a model's weights are."""

from __future__ import annotations

import re

import torch

from gentax.core import UsageError, unknown


def device_of(choice: str, local_rank: int = 0, processes: int = 1) -> torch.device:
    """Return the device that `choice` names.

    Args:
        choice: `cpu`, `cuda`, `cuda:N`, or `auto`, which is a GPU where there is one. Of several processes on a
            machine each takes the GPU of its own number.
        local_rank: the number of this process among those on its machine.
        processes: how many there are in all.

    Raises:
        UsageError: a device that is unknown or not there, and one GPU named for several processes.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", choice):
        raise unknown("device", choice, ("auto", "cpu", "cuda", "cuda:0", "cuda:1"))
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

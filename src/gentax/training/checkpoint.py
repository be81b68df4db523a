"""Checkpoints: a Hugging Face folder that any tool loads, with what a continued run needs beside it.

A checkpoint appears whole or not at all, and the one before stays until then. Weights and optimiser state are
safetensors; nothing is pickled.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from gentax.core.files import whole_folder

_STEP = re.compile(r"step-(\d{6})")


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model and its tokenizer into an existing folder, in Hugging Face format."""
    # Clones: fused projections are views of one tensor, which safetensors would refuse to split.
    state = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)
    tokenizer.save_pretrained(folder)


def save_checkpoint(run: Path, step: int, model: Any, tokenizer: Any, optimizer: torch.optim.Optimizer) -> Path:
    """Write the checkpoint of a run after `step` updates; return its folder."""
    folder = run / f"step-{step:06d}"
    with whole_folder(folder) as aside:
        save_model(model, tokenizer, aside)
        state = optimizer.state_dict()["state"]
        flat = {f"{index}.{key}": torch.as_tensor(value) for index, row in state.items() for key, value in row.items()}
        save_file(flat, aside / "optimizer.safetensors")
        (aside / "training.json").write_text(json.dumps({"step": step}) + "\n")
    return folder


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Return the whole checkpoints of a run as (step, folder), oldest first."""
    found = []
    for folder in run.iterdir() if run.is_dir() else ():
        match = _STEP.fullmatch(folder.name)
        if match and (folder / "training.json").is_file():
            found.append((int(match.group(1)), folder))
    return sorted(found)


def restore(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Put the weights and the optimiser's state of a checkpoint into `model` and `optimizer`, in place."""
    from transformers import AutoModelForCausalLM

    saved = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype=model.dtype)
    model.load_state_dict(saved.state_dict())
    flat = load_file(folder / "optimizer.safetensors")
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in flat.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

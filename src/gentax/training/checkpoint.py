"""Checkpoints: a Hugging Face folder that any tool loads, and next to the weights what a continued run needs.

A checkpoint appears whole or not at all, and the one before stays until then; afterwards it keeps its weights and loses
the rest. Weights and optimizer state are safetensors; nothing is pickled.

Names: `step-000025` after 25 policy-gradient steps (`step-000000` is where they begin, after supervised fine-tuning),
and `sft-000200` in the middle of supervised fine-tuning, deleted when that is over.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gentax.core import UsageError
from gentax.core.files import atomic_folder
from gentax.models.loading import silence_transformers
from gentax.training.distributed import slice_like, to_save

_NAME = re.compile(r"(step|sft)-(\d{6})")
STATE = "training_state.safetensors"  # what is needed to go on and is not in the weights

State = Mapping[str, torch.Tensor]


def save_model(model: Any, tokenizer: Any, folder: Path, weights: State | None = None) -> None:
    """Write a model and its tokenizer into an existing folder, in Hugging Face format; with other weights than the
    model's where `weights` gives them, whole and under the same names."""
    weights = model.state_dict() if weights is None else weights
    # Clones: fused projections are views of one tensor, which safetensors would refuse to split. Names of one weight
    # (tied embeddings) share a clone, by which transformers sees that it is to be written once.
    clones: dict[tuple[int, torch.Size], torch.Tensor] = {}
    state = {}
    for name, tensor in weights.items():
        key = (tensor.data_ptr(), tensor.shape)
        if key not in clones or not tensor.numel():
            clones[key] = tensor.detach().clone().contiguous()
        state[name] = clones[key]
    with silence_transformers():
        model.save_pretrained(folder, state_dict=state)
        tokenizer.save_pretrained(folder)


def save_checkpoint(
    run: Path, name: str, model: Any, tokenizer: Any, weights: State, state: State, facts: Mapping[str, Any]
) -> Path:
    """Write the checkpoint `name` of a run, such as `step-000025`; return its folder.

    Args:
        model, tokenizer, weights: see `save_model`.
        state: what else a continued run needs, flat (see `pack`).
        facts: plain values for a person, written to `training.json`.

    Raises:
        OSError: it could not be written; the checkpoints before are as they were, and the message names the last.
    """
    folder = run / name
    try:
        with atomic_folder(folder) as aside:
            save_model(model, tokenizer, aside, weights)
            save_file({key: tensor.detach().contiguous() for key, tensor in state.items()}, aside / STATE)
            (aside / "training.json").write_text(json.dumps(facts) + "\n")
    except (OSError, SafetensorError) as fault:  # the second is what a full disk is to safetensors
        raise OSError(f"the checkpoint {name} could not be written ({fault}); {last_checkpoint_text(run)}") from None
    for earlier in run.iterdir():
        if earlier != folder and _NAME.fullmatch(earlier.name):
            if earlier.name.startswith("sft"):
                shutil.rmtree(earlier, ignore_errors=True)
            else:
                (earlier / STATE).unlink(missing_ok=True)
    return folder


def checkpoints(run: Path, kind: str = "step") -> list[tuple[int, Path]]:
    """Return the whole checkpoints of a run as (step, folder), oldest first."""
    folders = [file.parent for file in run.glob(f"{kind}-*/training.json") if _NAME.fullmatch(file.parent.name)]
    return sorted((int(folder.name.removeprefix(f"{kind}-")), folder) for folder in folders)


def last_checkpoint_text(run: Path) -> str:
    """Name the last good checkpoint of a run that an error stops, for the error's message."""
    saved = checkpoints(run) or checkpoints(run, "sft")
    return f"the last whole checkpoint is {saved[-1][1]}" if saved else "there was no checkpoint yet"


def read_training_state(folder: Path) -> dict[str, torch.Tensor]:
    """Return the state that `save_checkpoint` wrote next to the weights. Raises UsageError where it is damaged or gone.

    Only the last checkpoint of a run has it.
    """
    try:
        return load_file(folder / STATE)
    except (OSError, SafetensorError) as fault:
        why = f"{folder / STATE} cannot be read ({fault})"
        raise UsageError(f"{why}; to begin a run from its weights, give model={folder} and another folder") from None


def pack(**parts: State) -> dict[str, torch.Tensor]:
    """Join the states of several things into one flat one: `optimizer.3.exp_avg`, `critic.weight` …"""
    return {f"{part}.{key}": tensor for part, state in parts.items() for key, tensor in state.items()}


def unpack(flat: State, part: str) -> dict[str, torch.Tensor]:
    """Return the state that `pack` called `part`; empty when there is none."""
    return {key.removeprefix(f"{part}."): tensor for key, tensor in flat.items() if key.startswith(f"{part}.")}


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return what an optimiser remembers of its parameters, flat and whole.

    Of several processes all call this; what they hold in slices only the first one returns.
    """
    state = optimizer.state_dict()["state"]
    flat = {f"{index}.{key}": torch.as_tensor(value) for index, row in state.items() for key, value in row.items()}
    whole = {name: to_save(tensor) for name, tensor in flat.items()}
    return {name: tensor for name, tensor in whole.items() if tensor is not None}


def load_optimizer(optimizer: torch.optim.Optimizer, flat: State) -> None:
    """Put back what `optimizer_state` returned."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in flat.items():
        index, key = name.split(".", 1)
        like = parameters[int(index)]
        state.setdefault(int(index), {})[key] = slice_like(tensor, like) if tensor.shape == like.shape else tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

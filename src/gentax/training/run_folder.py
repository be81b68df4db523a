"""The folder of a training run: its config, metrics and checkpoints; and the line that shows a step.

It holds `recipe.json`, `metrics.jsonl` (one row a step), checkpoints and, at the end, `done.json`, which names the
folder with the run's result. Every process reads it; the first one writes.

A checkpoint is a Hugging Face folder that any tool loads, and next to the weights what a continued run needs. It
appears whole or not at all, and the one before stays until then; afterwards it keeps its weights and loses the rest.
Weights and optimizer state are safetensors; nothing is pickled. Names: `step-000025` after 25 policy-gradient steps
(`step-000000` is where they begin, after supervised fine-tuning), and `sft-000200` in the middle of supervised
fine-tuning, deleted when that is over.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gentax.core import UsageError
from gentax.core.console import ProgressLine, format_duration, shows_progress
from gentax.core.files import atomic_file, atomic_folder, read_json, read_lines, write_json
from gentax.core.settings import plain
from gentax.models.loading import silence_transformers
from gentax.policies.local import LocalPolicy
from gentax.training.config import RUN_FORMAT, TrainConfig
from gentax.training.distributed import World, slice_like, to_save

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
    run: Path, name: str, policy: LocalPolicy, weights: State, state: State, facts: Mapping[str, Any]
) -> Path:
    """Write the checkpoint `name` of a run, such as `step-000025`; return its folder.

    Args:
        policy, weights: the player, and its weights (see `save_model`).
        state: what else a continued run needs, flat (see `pack`).
        facts: plain values for a person, written to `training.json`.

    Raises:
        OSError: it could not be written; the checkpoints before are as they were, and the message names the last.
    """
    folder = run / name
    try:
        with atomic_folder(folder) as aside:
            save_model(policy.model, policy.tokenizer, aside, weights)
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


Metrics = dict[str, float]


@dataclass
class RunFolder:
    """One run's folder; `rows` are those of the steps done."""

    path: Path
    world: World
    rows: list[Metrics] = field(default_factory=list)

    @classmethod
    def open(cls, path: str | Path, config: TrainConfig, world: World) -> RunFolder:
        """Make the folder, or check that it is one of the same recipe, and read the rows logged so far.

        Raises:
            UsageError: the folder holds a run of another recipe, or something else.
        """
        folder = cls(Path(path), world)
        refusal = (
            folder._claim(json.loads(json.dumps({"format": RUN_FORMAT, **plain(config)}))) if world.first else None
        )
        if refusal := world.gather(refusal)[0]:  # what one of them refuses, all do
            raise UsageError(refusal)
        folder.rows += _logged_rows(folder.path / "metrics.jsonl")
        return folder

    def _claim(self, recipe: dict[str, Any]) -> str | None:
        """Write the recipe, unless it is there; return why the folder cannot be had."""
        record = self.path / "recipe.json"
        if record.is_file():
            earlier = read_json(record)
            if not isinstance(earlier, dict) or earlier.get("format") != RUN_FORMAT:
                return f"{self.path} holds a run of another version of gentax; give another folder, or delete that one"
            if earlier != recipe:
                return (
                    f"{self.path} holds a run of another recipe ({_difference(earlier, recipe)}); "
                    "give another folder, or delete that one"
                )
            for left in self.path.glob(".*"):  # what a kill left half written
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        elif self.path.is_dir() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            return f"{self.path} is not empty and holds no run of gentax"
        else:
            write_json(record, recipe)
        return None

    def drop_after(self, step: int) -> None:
        """Drop the rows after `step`, whose updates were lost."""
        self.rows = [row for row in self.rows if row["step"] <= step]
        if self.world.first:
            with atomic_file(self.path / "metrics.jsonl") as aside:
                aside.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        self.world.barrier()

    def log(self, row: Metrics, seconds: float, steps: int) -> Metrics:
        """Add the row of a step, which took some seconds; return it with `elapsed_s` and `left_s` of the whole run."""
        elapsed = (self.rows[-1]["elapsed_s"] if self.rows else 0.0) + seconds
        row = row | {"elapsed_s": elapsed, "left_s": (steps - row["step"]) * elapsed / row["step"]}
        self.rows.append(row)
        if self.world.first:
            with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        return row

    def finish(self, folder: Path, **facts: Any) -> Path:
        """Name the folder that holds the result, with what there is to say about it; return it."""
        if self.world.first:
            write_json(self.path / "done.json", {"result": str(folder.relative_to(self.path)), **facts})
        self.world.barrier()
        return folder


def result(path: Path) -> Path | None:
    """Return the model folder a finished run came to; None when it is not finished.

    Raises:
        UsageError: `done.json` is damaged, or the model it names is gone.
    """
    done = path / "done.json"
    if not os.path.lexists(done):
        return None
    values = read_json(done)
    name = values.get("result") if isinstance(values, dict) else None
    if not isinstance(name, str) or ".." in Path(name).parts or not (path / name).is_dir():
        raise UsageError(f"{done} names no model of the run; delete it, and the same command makes it again")
    return path / name


def _logged_rows(log: Path) -> Iterator[Metrics]:
    """Yield the rows of a log but for one that was being written when the run was killed.

    Raises:
        UsageError: another line is no row.
    """
    if not os.path.lexists(log):
        return
    damaged = ""
    for number, line in read_lines(log):
        if damaged:
            raise UsageError(damaged)
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and {"step", "elapsed_s"} <= row.keys() and all(map(_is_number, row.values())):
            yield row
        else:
            damaged = f"{log}, line {number}, is no row of metrics; delete the file, or restore it, to go on"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def latest_model(path: Path) -> Path:
    """Return the result of a finished run, or the last checkpoint of one that is not. Raises UsageError for neither."""
    if (folder := result(path)) is not None:
        return folder
    if not (saved := checkpoints(path)):
        raise UsageError(f"{path} holds no checkpoint yet")
    return saved[-1][1]


def _difference(earlier: dict[str, Any], recipe: dict[str, Any], prefix: str = "") -> str:
    """Say the first setting in which two recipes differ."""
    key = next(key for key in {**recipe, **earlier} if earlier.get(key) != recipe.get(key))
    before, now = earlier.get(key), recipe.get(key)
    if isinstance(before, dict) and isinstance(now, dict):
        return _difference(before, now, f"{prefix}{key}.")
    return f"its {prefix}{key} is {before}, not {now}"


MANY = 0.05  # a share of truncated replies from which it is said, as after an evaluation


def show_progress(steps: int, progress: bool | None, on_step: Callable[[Metrics], None]) -> Callable[[Metrics], None]:
    """Return a callback that shows the metrics of a run and calls `on_step`; `progress` is None for where a person is
    watching."""
    if not shows_progress(progress):
        return on_step
    line = ProgressLine()

    def show(row: Metrics) -> None:
        number, of = (row["sft_step"], row["of"]) if "sft_step" in row else (row["step"], steps)
        line.update(step_line(row, steps), int(number), int(of))
        on_step(row)

    return show


def step_line(row: Mapping[str, float], steps: int) -> str:
    """Return a step of training as one line."""
    if "sft_step" in row:
        return f"  fine-tuning {row['sft_step']:.0f}/{row['of']:.0f}  loss {row['loss']:.3f}"
    validation = f"  validation {row['validation_success']:.2f}" if "validation_success" in row else ""
    share = row.get("truncated", 0)  # no fault of the policy's, and not among the invalid
    truncated = f"  cut off {share:.0%}" if share > MANY else ""
    return (
        f"  step {row['step']:.0f}/{steps}  success {row['success']:.2f}  return {row['return']:.2f}  "
        f"length {row['length']:.1f}  invalid {row['invalid']:.0%}{truncated}  entropy {row.get('entropy', 0):.2f}  "
        f"kl {row.get('kl', 0):.3f}  {row['tokens_per_s']:.0f} tokens/s  {format_duration(row['left_s'])} left"
        f"{validation}"
    )

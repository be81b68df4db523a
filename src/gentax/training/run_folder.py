"""The folder of a training run: its config, the metrics of each step, its checkpoints; and the line that shows a step.

It holds `recipe.json`, `metrics.jsonl` (one row a step), checkpoints (see `checkpoint.py`) and, at the end,
`done.json`, which names the folder with the run's result. Every process reads it; the first one writes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gentax.core import UsageError
from gentax.core.console import ProgressLine, format_duration, shows_progress
from gentax.core.files import atomic_file, read_json, read_lines, write_json
from gentax.core.settings import plain
from gentax.training.checkpoint import checkpoints
from gentax.training.config import RUN_FORMAT, TrainConfig
from gentax.training.distributed import World

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
            folder._claim(json.loads(json.dumps({"format": RUN_FORMAT, **plain(config.identity())})))
            if world.first
            else None
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

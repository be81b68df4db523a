"""Experiment trackers: TensorBoard, Weights & Biases, MLflow and trackio behind one function.

Off by default, and nothing is imported before one is asked for. Each writes to the run's folder or to where its own
environment variables say, such as `WANDB_MODE=offline`, `MLFLOW_TRACKING_URI` or `TRACKIO_DIR`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gentax.core.errors import unknown
from gentax.core.imports import require

PROJECT = "gentax"
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
COUNTS = ("step", "sft_step", "of")  # metrics that number the others
Log = Callable[[Mapping[str, float], int], None]  # metrics by name, and the step


@contextmanager
def tracked(name: str | None, run: Path, config: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that takes the metrics of each step; with no `name` it does nothing.

    Args:
        name: the tracker, one of `PACKAGES`.
        run: the run's folder, whose name is the run's.
        config: the settings, as plain values.

    Raises:
        UsageError: an unknown tracker, or one whose package is missing.
    """
    if name is None:
        yield lambda metrics: None
        return
    package = module(name)
    started: list[tuple[Log, Callable[[], None]]] = []  # with the first step, when the run has its folder
    before = 0  # steps of supervised fine-tuning, which policy-gradient steps follow

    def on_step(metrics: Mapping[str, Any]) -> None:
        nonlocal before
        if not started:
            started.append(_start(name, package, run, config))
        numbers = {key: float(value) for key, value in metrics.items() if type(value) in (int, float)}
        if "sft_step" in numbers:
            step, before, prefix = int(numbers["sft_step"]), int(numbers.get("of", 0)), "sft/"
        else:
            step, prefix = before + int(numbers.get("step", 0)), ""
        started[0][0]({prefix + key: value for key, value in numbers.items() if key not in COUNTS}, step)

    try:
        yield on_step
    finally:
        for _, finish in started:
            finish()


def module(name: str) -> Any:
    """Return the package of a tracker. Raises UsageError for one that is unknown or missing."""
    if name not in PACKAGES:
        raise unknown("tracker", name, PACKAGES)
    return require(PACKAGES[name], f"--track {name}")


def _start(name: str, package: Any, run: Path, config: Mapping[str, Any]) -> tuple[Log, Callable[[], None]]:
    """Return what logs the metrics of a step, and what ends the run."""
    if name == "tensorboard":
        writer = package.SummaryWriter(str(run / "tensorboard"))

        def write(metrics: Mapping[str, float], step: int) -> None:
            for key, value in metrics.items():
                writer.add_scalar(key, value, step)

        return write, writer.close
    if name == "mlflow":
        package.set_experiment(PROJECT)
        package.start_run(run_name=run.name)
        package.log_params({key: str(value)[:500] for key, value in config.items()})
        return lambda metrics, step: package.log_metrics(dict(metrics), step=step), package.end_run
    where = {"dir": str(run)} if name == "wandb" else {}
    started = package.init(project=PROJECT, name=run.name, config=dict(config), **where)
    return lambda metrics, step: started.log(dict(metrics), step=step), started.finish

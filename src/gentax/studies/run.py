"""Doing a study: each stage that has no folder yet is made aside and then takes its name.

A kill at any moment loses at most the stage in flight; of a training run, at most what came after its last
checkpoint, since its working folder is found again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import gentax
from gentax.core import Episode
from gentax.core.episode import EPISODES_FILE as EPISODES
from gentax.core.episode import read_episodes, write_episodes
from gentax.core.files import whole_folder, write_json
from gentax.evals.evaluate import evaluate, tasks_of
from gentax.studies.page import write_report
from gentax.studies.plan import Plan, Stage, Study, plan
from gentax.studies.results import measure
from gentax.training import train
from gentax.training.run_folder import last


class Listener(Protocol):
    """Told what a study is doing."""

    def begin(self, stages: Sequence[Stage], done: Mapping[Stage, float]) -> None:
        """All stages in order, and how many seconds those took that are done."""

    def stage(self, stage: Stage) -> None:
        """A stage begins."""

    def train_row(self, row: dict[str, float], steps: int) -> None:
        """A step of the training in progress; `steps` is how many policy-gradient steps it has."""

    def episode(self, number: int, of: int) -> None:
        """An episode of the evaluation in progress has ended."""

    def end(self, stage: Stage, outcome: str) -> None:
        """A stage is done. `outcome` is what came of an evaluation, in a few words."""


@dataclass(frozen=True)
class Store:
    """The folders of stages. A stage that has one is done, and its folder is whole."""

    root: Path

    def path(self, stage: Stage) -> Path:
        return self.root / stage.folder

    def has(self, stage: Stage) -> bool:
        return (self.path(stage) / "stage.json").is_file()

    def seconds(self, stage: Stage) -> float:
        """Return how long a stage took that is done."""
        return float(json.loads((self.path(stage) / "stage.json").read_text(encoding="utf-8"))["seconds"])

    def episodes(self, stage: Stage) -> list[Episode]:
        """Return the episodes of an evaluation."""
        return read_episodes(self.path(stage))

    def working(self, stage: Stage) -> Path:
        """Where a training run works until it is done."""
        return self.root / f".{stage.folder}.working"


def run_study(
    study: Study, root: str | Path, listener: Listener, parallel: int | None = None, stop_if_unreadable: bool = True
) -> Path:
    """Do what is missing of `study` under the folder `root`; return the path of the report.

    Args:
        study: what is compared.
        root: where the stages go.
        listener: told what is done.
        parallel: episodes in flight at once; when None, as many as memory holds, 128 at most. The results do not depend
            on it, but for rounding.
        stop_if_unreadable: stop when no action can be read out of most of the base's first replies (see
            `rollouts.readable`). A policy that collapsed in training is a result, and never stops a study.

    Raises:
        UsageError: see `plan`.
    """
    store, todo = Store(Path(root)), plan(study)
    stages = todo.stages()
    done = {stage: store.seconds(stage) for stage in stages if store.has(stage)}
    listener.begin(stages, done)
    for stage in stages:
        if stage in done:
            continue
        listener.stage(stage)
        sign = partial(_sign, stage=stage, began=time.time())
        outcome = ""
        if stage.kind == "evaluate":
            readable = stop_if_unreadable and not stage.needs and "policy" not in stage.inputs
            outcome = _evaluate(todo, stage, store, listener, sign, parallel, readable)
        elif stage.kind == "train":
            _train(todo, stage, store, listener, sign, parallel)
        else:
            _WRITE[stage.kind](todo, stage, store, sign)
        listener.end(stage, outcome)
    return store.path(todo.report) / "report.html"


Sign = Callable[[Path], None]


def _sign(folder: Path, stage: Stage, began: float) -> None:
    """Write what a stage was made of and how long it took, as its last file."""
    content = {
        "kind": stage.kind,
        "label": stage.label,
        "inputs": stage.inputs,
        "needs": [need.folder for need in stage.needs],
        "gentax": gentax.__version__,
        "seconds": round(time.time() - began, 1),
    }
    write_json(folder / "stage.json", content)


def _evaluate(
    todo: Plan, stage: Stage, store: Store, listener: Listener, sign: Sign, parallel: int | None, readable: bool
) -> str:
    inputs = stage.inputs
    name, levels = inputs["domain"], {inputs["domain"]: inputs["level"]}
    policy = last(store.path(stage.needs[0])) if stage.needs else inputs.get("policy", todo.study.base)
    total, count = len(tasks_of(levels, inputs["tasks"], inputs["split"])[name]) * inputs["samples"], 0

    def on_episode(_: Episode) -> None:
        nonlocal count
        count += 1
        listener.episode(count, total)

    with whole_folder(store.path(stage)) as folder:
        result = evaluate(
            policy,
            levels,
            tasks=inputs["tasks"],
            split=inputs["split"],
            samples=inputs["samples"],
            play=todo.study.evaluate,
            model=todo.study.options,
            parallel=parallel,
            on_episode=on_episode,
            stop_if_unreadable=readable,
            progress=False,
        )
        write_episodes(folder / EPISODES, result.episodes[name])
        write_json(folder / "summary.json", result.to_json())
        sign(folder)
    return f"{result.success()[name].value:.1f} % of {total} solved"


def _train(todo: Plan, stage: Stage, store: Store, listener: Listener, sign: Sign, parallel: int | None) -> None:
    cell = next(cell for cell, its in todo.trained.items() if its == stage)
    arm, source, seed = cell
    recipe = todo.study.recipe(source, arm, seed)
    working = store.working(stage)
    if parallel is not None:
        recipe = replace(recipe, parallel=parallel)
    train(recipe, working, lambda row: listener.train_row(row, recipe.updates), progress=False)
    sign(working)
    shutil.rmtree(store.path(stage), ignore_errors=True)  # without stage.json it was nothing
    working.replace(store.path(stage))


def _runtimes(todo: Plan, store: Store) -> list[dict[str, str]]:
    """Return the devices and dtypes that the study's policies were evaluated with, each once."""
    found = []
    for stage in (*todo.init.values(), *todo.after.values()):
        runtime = json.loads((store.path(stage) / "summary.json").read_text(encoding="utf-8")).get("runtime")
        if runtime is not None and runtime not in found:
            found.append(runtime)
    return found


def _measure(todo: Plan, stage: Stage, store: Store, sign: Sign) -> None:
    with whole_folder(store.path(stage)) as folder:
        write_json(folder / "results.json", measure(todo, store.episodes) | {"runtimes": _runtimes(todo, store)})
        sign(folder)


def _report(todo: Plan, stage: Stage, store: Store, sign: Sign) -> None:
    with whole_folder(store.path(stage)) as folder:
        write_report(todo, store.episodes, store.path, folder / "report.html")
        sign(folder)


_WRITE: dict[str, Callable[[Plan, Stage, Store, Sign], None]] = {"measure": _measure, "report": _report}

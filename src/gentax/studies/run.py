"""Running a study: each stage that has no folder yet is written aside and then takes its name.

A kill at any moment loses at most the stage in progress; of a training run, at most what came after its last
checkpoint, since its working folder is found again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import gentax
from gentax.core import Episode
from gentax.core.episode import EPISODES_FILE as EPISODES
from gentax.core.episode import read_episodes, write_episodes
from gentax.core.files import atomic_folder, write_json
from gentax.evals.evaluate import evaluate, tasks_of
from gentax.report import write
from gentax.studies.plan import Stage, Study, make_plan
from gentax.studies.results import StudyResults, analyze, study_report
from gentax.training import train
from gentax.training.run_folder import latest_model

RESULTS, PAGE = "results.json", "report.html"  # in the folder of the report


class StudyCallback:
    """Called while a study runs. Override what you need."""

    def on_begin(self, stages: Sequence[Stage], done: Mapping[Stage, float]) -> None:
        """Before the first stage: all stages in order, and the seconds that finished ones took."""

    def on_stage_begin(self, stage: Stage) -> None:
        """Before a stage."""

    def on_train_log(self, metrics: Mapping[str, float], max_steps: int) -> None:
        """After a step of the training in progress, which has `max_steps` policy-gradient steps."""

    def on_episode(self, number: int, total: int) -> None:
        """After an episode of the evaluation in progress."""

    def on_stage_end(self, stage: Stage, outcome: str) -> None:
        """After a stage. `outcome` sums up an evaluation in a few words."""


@dataclass(frozen=True)
class Store:
    """The folders of stages. A stage that has one is done, and its folder is complete."""

    root: Path

    def path(self, stage: Stage) -> Path:
        return self.root / stage.folder

    def has(self, stage: Stage) -> bool:
        return (self.path(stage) / "stage.json").is_file()

    def seconds(self, stage: Stage) -> float:
        """Return how long a finished stage took."""
        return float(json.loads((self.path(stage) / "stage.json").read_text(encoding="utf-8"))["seconds"])

    def episodes(self, stage: Stage) -> list[Episode]:
        """Return the episodes of an evaluation."""
        return read_episodes(self.path(stage))

    def working_folder(self, stage: Stage) -> Path:
        """Return where a training run works until it is done."""
        return self.root / f".{stage.folder}.working"


class StudyRun:
    """One run of a study.

    Args:
        study: what is compared.
        root: where the stages go.
        callback: called while it runs.
        parallel: episodes in flight at once; when None, as many as memory holds, 128 at most. The results do not depend
            on it, except for rounding.
        stop_if_unreadable: stop when no action can be read out of most of the base's first replies (see
            `rollouts.readable`). A policy that collapsed in training is a result, and never stops a study.

    Raises:
        UsageError: see `make_plan`.
    """

    def __init__(
        self,
        study: Study,
        root: str | Path,
        callback: StudyCallback,
        parallel: int | None = None,
        stop_if_unreadable: bool = True,
    ) -> None:
        self.plan, self.store, self.callback = make_plan(study), Store(Path(root)), callback
        self.parallel, self.stop_if_unreadable = parallel, stop_if_unreadable

    @property
    def page(self) -> Path:
        """The path of the report."""
        return self.store.path(self.plan.report) / PAGE

    @cached_property
    def results(self) -> StudyResults:
        """The results of the finished study, computed once."""
        return analyze(self.plan, self.store.episodes)

    def results_json(self) -> dict[str, Any]:
        """Return the results as JSON values, with the devices and dtypes of the evaluations."""
        return self.results.to_json() | {"runtimes": self._runtimes()}

    def run(self) -> Path:
        """Run the stages that are missing; return the path of the report."""
        stages = self.plan.stages()
        done = {stage: self.store.seconds(stage) for stage in stages if self.store.has(stage)}
        self.callback.on_begin(stages, done)
        run_stage = {"evaluate": self._evaluate, "train": self._train, "report": self._report}
        for stage in stages:
            if stage not in done:
                self.callback.on_stage_begin(stage)
                self._started = time.time()
                outcome = run_stage[stage.kind](stage)
                self.callback.on_stage_end(stage, outcome)
        return self.page

    def _sign(self, folder: Path, stage: Stage) -> None:
        """Write what a stage was made from and how long it took, as its last file."""
        content = {
            "kind": stage.kind,
            "label": stage.label,
            "inputs": stage.inputs,
            "needs": [need.folder for need in stage.needs],
            "gentax": gentax.__version__,
            "seconds": round(time.time() - self._started, 1),
        }
        write_json(folder / "stage.json", content)

    def _evaluate(self, stage: Stage) -> str:
        inputs, study, count = stage.inputs, self.plan.study, 0
        name, levels = inputs["domain"], {inputs["domain"]: inputs["level"]}
        policy = latest_model(self.store.path(stage.needs[0])) if stage.needs else inputs.get("policy", study.model)
        total = len(tasks_of(levels, inputs["tasks"], inputs["split"])[name]) * inputs["samples"]
        of_base = not stage.needs and "policy" not in inputs

        def on_episode(_: Episode) -> None:
            nonlocal count
            count += 1
            self.callback.on_episode(count, total)

        with atomic_folder(self.store.path(stage)) as folder:
            result = evaluate(
                policy,
                levels,
                tasks=inputs["tasks"],
                split=inputs["split"],
                samples=inputs["samples"],
                config=study.evaluate,
                model=study.options,
                parallel=self.parallel,
                on_episode=on_episode,
                stop_if_unreadable=self.stop_if_unreadable and of_base,
                progress=False,
            )
            write_episodes(folder / EPISODES, result.episodes[name])
            write_json(folder / "summary.json", result.to_json())
            self._sign(folder, stage)
        return f"{result.success()[name].value:.1f} % of {total} solved"

    def _train(self, stage: Stage) -> str:
        arm, source, seed = next(cell for cell, of_cell in self.plan.trained.items() if of_cell == stage)
        config = self.plan.study.train_config(source, arm, seed)
        if self.parallel is not None:
            config = replace(config, parallel=self.parallel)
        working, path = self.store.working_folder(stage), self.store.path(stage)
        train(config, working, lambda metrics: self.callback.on_train_log(metrics, config.updates), progress=False)
        self._sign(working, stage)
        shutil.rmtree(path, ignore_errors=True)  # without stage.json it was incomplete
        working.replace(path)
        return ""

    def _report(self, stage: Stage) -> str:
        with atomic_folder(self.store.path(stage)) as folder:
            write_json(folder / RESULTS, self.results_json())
            write(study_report(self.plan, self.results, self.store.path), folder / PAGE)
            self._sign(folder, stage)
        return ""

    def _runtimes(self) -> list[dict[str, str]]:
        """Return the distinct devices and dtypes with which policies were evaluated."""
        summaries = (self.store.path(s) / "summary.json" for s in (*self.plan.init.values(), *self.plan.after.values()))
        runtimes = [json.loads(path.read_text(encoding="utf-8")).get("runtime") for path in summaries]
        return [one for n, one in enumerate(runtimes) if one is not None and one not in runtimes[:n]]


def run_study(
    study: Study,
    root: str | Path,
    callback: StudyCallback | None = None,
    parallel: int | None = None,
    stop_if_unreadable: bool = True,
) -> Path:
    """Run the missing stages of `study` under the folder `root`; return the path of the report (see `StudyRun`)."""
    return StudyRun(study, root, callback or StudyCallback(), parallel, stop_if_unreadable).run()

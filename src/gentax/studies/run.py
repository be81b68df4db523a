"""Running a study: stages that are missing are handed to an engine as soon as those that they need are done.

A kill at any moment loses at most the stages in progress; of a training run, at most what came after its last
checkpoint. Runs of studies that share stages, at once, share the work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from gentax.core.errors import StudyIncomplete
from gentax.core.files import write_json
from gentax.studies.engines.base import Engine, MakeEngine, SerialEngine
from gentax.studies.plan import Stage, make_plan
from gentax.studies.remote import open_store
from gentax.studies.results import StudyResults, analyze, base_axes, study_report
from gentax.studies.stages import StageResult, StageRunner
from gentax.studies.store import DamagedStage, StageLocked, Store
from gentax.studies.study import Study

RESULTS, PAGE = "results.json", "report.html"  # in the folder of the report
ATTEMPTS = 3  # to read what was stored, which is made again where it is damaged
POLL = 0.5  # seconds between two looks at stages in progress
RETRY = 1.0  # seconds between two attempts to take a stage that another run is doing


class StudyCallback:
    """Called while a study runs. Override what you need. Several stages may be in progress at once."""

    def on_begin(self, stages: Sequence[Stage], done: Collection[Stage], slots: int) -> None:
        """Before the first of `stages`: those in `done` were finished before, and `slots` are done at once."""

    def on_stage_begin(self, stage: Stage) -> None:
        """Before a stage."""

    def on_progress(self, stage: Stage, fraction: float, detail: str) -> None:
        """Now and then while a stage is in progress. `detail` says what is being done."""

    def on_stage_end(self, stage: Stage, outcome: str) -> None:
        """After a stage. `outcome` sums up an evaluation in a few words."""

    def on_stage_elsewhere(self, stage: Stage) -> None:
        """A stage is being done by another run; its end is waited for."""

    def on_stage_failed(self, stage: Stage, why: str) -> None:
        """After a stage that could not be done. The others go on."""

    def on_damage(self, what: str) -> None:
        """A stored file was not what had been stored; its stage is made again."""


class StudyRun:
    """One run of a study.

    Args:
        study: what is compared.
        root: where the stages go: a folder, a URL that fsspec can open, or a store.
        callback: called while it runs.
        parallel: episodes in flight at once; when None, as many as memory holds, 128 at most. The results do not depend
            on it, except for rounding.
        stop_if_unreadable: stop when no action can be read out of most of the base's first replies (see
            `rollouts.readable`). A policy that collapsed in training is a result, and never stops a study.
        engine: makes what does the stages; this process when None.
        file: the path of the study file and its text, which the report quotes.

    Raises:
        UsageError: see `make_plan`; a store of a newer version.
    """

    def __init__(
        self,
        study: Study,
        root: str | Path | Store,
        callback: StudyCallback | None = None,
        parallel: int | None = None,
        stop_if_unreadable: bool = True,
        engine: MakeEngine = SerialEngine,
        file: tuple[str, str] | None = None,
    ) -> None:
        self.file = file
        self.plan, self.store, self.callback = make_plan(study), open_store(root), callback or StudyCallback()
        self.runner = StageRunner(study, self.store, parallel, stop_if_unreadable)
        self.make_engine = engine

    @property
    def page(self) -> Path:
        """The path of the report."""
        return self.store.path(self.plan.report) / PAGE

    @cached_property
    def results(self) -> StudyResults:
        """The results of the finished study, computed once from the scores of its evaluations."""
        return analyze(self.plan, self.store)

    def results_json(self) -> dict[str, Any]:
        """Return the results of the finished study as JSON values, as its report stored them."""
        values: dict[str, Any] = self.store.json(self.plan.report, RESULTS)
        return values

    def run(self) -> Path:
        """Run the stages that are missing; return the path of the report.

        Raises:
            StudyIncomplete: stages that could not be done; those that do not need them are done.
        """
        self.store.open()
        self.store.sweep()
        stages = self.plan.stages()
        for _ in range(ATTEMPTS):
            _Scheduler(self, stages, self.finished(stages)).run()
            try:
                self._write_report()
                self.results  # noqa: B018  reads what a report that was there before came from
                self.store.check(self.plan.report)
                return self.page
            except DamagedStage as fault:
                self.__dict__.pop("results", None)
                damage = str(fault)
        self.report_damage(self.store.take_damaged())
        raise StudyIncomplete(f"{damage}, and so was what was stored in its place; is the disk failing?")

    def finished(self, stages: Sequence[Stage]) -> list[Stage]:
        """Return the stages that are done and intact."""
        done = [stage for stage in stages if self.store.has(stage)]
        self.report_damage(self.store.take_damaged())
        return done

    def report_damage(self, damaged: Sequence[str]) -> None:
        for what in damaged:
            self.callback.on_damage(what)

    def _write_report(self) -> None:
        """Write the report, unless it is there. Raises DamagedStage for what it reads."""
        stage, store = self.plan.report, self.store
        if store.has(stage):
            return
        from gentax.report.page import write_report  # a run with nothing to do loads no Matplotlib

        self.callback.on_stage_begin(stage)
        while not store.has(stage):
            try:
                with store.lock(stage):
                    if store.has(stage):
                        break
                    started = time.monotonic()
                    folder = store.fresh_folder(stage)
                    axes = base_axes(self.plan, store)
                    more = {"axes": [of_domain.to_json() for of_domain in axes], "runtimes": self._runtimes()}
                    write_json(folder / RESULTS, self.results.to_json() | more)
                    write_report(study_report(self.plan, self.results, axes, store, self.file), folder)
                    store.finish(stage, folder, time.monotonic() - started, None)
            except StageLocked:  # another run writes it
                time.sleep(RETRY)
        self.callback.on_stage_end(stage, "")

    def _runtimes(self) -> list[dict[str, str]]:
        """Return the distinct devices and dtypes with which policies were evaluated."""
        stages = (*self.plan.init.values(), *self.plan.after.values())
        runtimes = [self.store.json(stage, "summary.json")["runtime"] for stage in stages]
        return [json.loads(text) for text in dict.fromkeys(json.dumps(r) for r in runtimes if r is not None)]


class _Scheduler:
    """Hands stages to the engine, in order, as soon as what they need is done."""

    def __init__(self, run: StudyRun, stages: list[Stage], done: Collection[Stage]) -> None:
        self.run_of, self.callback, self.store = run, run.callback, run.store
        self.stages, self.done_before, self.done = stages, done, set(done)
        self.order = {stage: number for number, stage in enumerate(stages)}
        self.waiting = [stage for stage in stages if stage.kind != "report" and stage not in self.done]
        self.running: set[Stage] = set()
        self.elsewhere: dict[Stage, float] = {}  # stages that another run does, and when to look again
        self.failed: dict[Stage, str] = {}
        self.fatal = False

    def run(self) -> None:
        """Do the stages before the report. Raises StudyIncomplete."""
        engine = self.run_of.make_engine(self.run_of.runner, self.callback.on_progress) if self.waiting else None
        self.callback.on_begin(self.stages, self.done_before, 1 if engine is None else engine.slots)
        if engine is None:
            return
        finished = False
        try:
            self._run_stages(engine)
            finished = True
        finally:
            engine.close(stop=not finished)
        if self.failed or self.waiting:
            raise StudyIncomplete(self._failure())

    def _run_stages(self, engine: Engine) -> None:
        while self.running or self._can_go_on():
            self._submit(engine)
            if self.running:
                for result in engine.wait(POLL):
                    self._end(result)
                for stage in self.running:  # one that is done in this process has ended
                    if values := self.store.progress(stage):
                        self.callback.on_progress(stage, values["fraction"], values["detail"])
            elif self.waiting:
                time.sleep(POLL)

    def _can_go_on(self) -> bool:
        return not self.fatal and any(not self._hopeless(stage) for stage in self.waiting)

    def _hopeless(self, stage: Stage) -> bool:
        return any(need in self.failed for need in stage.needs)

    def _submit(self, engine: Engine) -> None:
        """Begin what can begin, in order."""
        now = time.monotonic()
        for stage in list(self.waiting):
            if len(self.running) >= engine.slots or self.fatal:
                return
            if self.elsewhere.get(stage, 0.0) > now or not all(need in self.done for need in stage.needs):
                continue
            self.waiting.remove(stage)
            self.running.add(stage)
            if stage not in self.elsewhere:
                self.callback.on_stage_begin(stage)
            engine.submit(stage)

    def _end(self, result: StageResult) -> None:
        stage = result.stage
        self.running.discard(stage)
        self.run_of.report_damage(result.damaged)
        if result.status == "done":
            self.elsewhere.pop(stage, None)
            self.done.add(stage)
            self.callback.on_stage_end(stage, result.detail)
        elif result.status == "failed":
            self.failed[stage] = result.detail
            # Without the base nothing can be compared, so training would be in vain.
            self.fatal = self.fatal or result.fatal or (stage.kind == "evaluate" and not stage.needs)
            self.callback.on_stage_failed(stage, result.detail)
        elif result.status == "locked":
            if stage not in self.elsewhere:
                self.callback.on_stage_elsewhere(stage)
            self.elsewhere[stage] = time.monotonic() + RETRY
            self._wait_again(stage)
        else:  # a stage that it needs was found damaged
            for need in stage.needs:
                if need in self.done and not self.store.has(need):
                    self.done.discard(need)
                    self._wait_again(need)
            self._wait_again(stage)

    def _wait_again(self, stage: Stage) -> None:
        self.waiting.append(stage)
        self.waiting.sort(key=self.order.__getitem__)

    def _failure(self) -> str:
        """Say in one line what could not be done, and what that leaves undone."""
        first = next(iter(self.failed))
        text = f"{first.title}: {self.failed[first]}"
        if len(self.failed) > 1:
            text += f"; and {len(self.failed) - 1} more stages failed"
        left = sum(stage not in self.done and stage not in self.failed for stage in self.stages)
        return f"{text} ({left} stages are left to do; the same command again tries)"


def run_study(
    study: Study,
    root: str | Path,
    callback: StudyCallback | None = None,
    parallel: int | None = None,
    stop_if_unreadable: bool = True,
    engine: MakeEngine = SerialEngine,
) -> Path:
    """Run the missing stages of `study` under the folder `root`; return the path of the report (see `StudyRun`)."""
    return StudyRun(study, root, callback, parallel, stop_if_unreadable, engine).run()

"""What of a study is done, what is left and how long that takes: in `gentax study plan`, and while a study runs."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gentax.core.console import format_duration, one_line
from gentax.studies.costs import CostModel, TimeEstimate
from gentax.studies.plan import Plan, Stage
from gentax.studies.run import StudyCallback
from gentax.studies.store import STAGES, Store

REFRESH = 4  # times a second that a terminal is redrawn
SHOWN = 4  # stages in progress that a terminal shows
State = Literal["done", "running", "stopped", "missing"]


@dataclass(frozen=True)
class StageGroup:
    """Stages that are shown together: evaluations of the base, or a training run with its evaluations."""

    title: str
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class StudyOverview:
    """The stages of a study and their expected costs."""

    groups: tuple[StageGroup, ...]
    states: dict[Stage, State]
    seconds: dict[Stage, float]  # that each stage took or is expected to take
    wall_seconds: float  # that are left, with so many stages at once
    slots: int
    memory: float  # bytes that so many stages need at once
    gpu_seconds: float  # of GPUs that the stages left will take
    storage: float  # bytes that the stages left will take
    free_storage: float  # bytes
    other_versions: int  # stages of the same names that were made with other settings or other code

    def left(self, kind: str) -> list[Stage]:
        """Return the stages of a kind that are not done."""
        return [stage for stage, state in self.states.items() if stage.kind == kind and state != "done"]

    def to_json(self) -> dict[str, Any]:
        """Return the overview as JSON values, with every stage."""
        return {
            "stages": [
                {
                    "folder": stage.folder,
                    "kind": stage.kind,
                    "title": stage.title,
                    "needs": [need.folder for need in stage.needs] if stage.kind != "report" else "all",
                    "state": state,
                    "seconds": round(self.seconds[stage], 1),
                }
                for stage, state in self.states.items()
            ],
            "slots": self.slots,
            "wall_seconds_left": self.wall_seconds,
            "stage_seconds_left": sum(self.seconds[stage] for stage, state in self.states.items() if state != "done"),
            "gpu_seconds_left": self.gpu_seconds,
            "memory_bytes": self.memory,
            "storage_bytes": self.storage,
            "free_storage_bytes": self.free_storage,
            "other_versions": self.other_versions,
        }


def overview(plan: Plan, store: Store, costs: CostModel, slots: int) -> StudyOverview:
    """Return what a study consists of and what is left.

    Args:
        plan: of the study.
        store: where its stages are, or will be.
        costs: what stages take.
        slots: how many stages are done at once.
    """
    stages = plan.stages()
    present = store.present()
    seals = {}
    for stage in stages:
        if (stage.kind == "report" or stage.folder in present) and store.has(stage):
            seals[stage] = store.seal(stage)
    estimate = TimeEstimate(stages, seals, slots, costs)
    states: dict[Stage, State] = {}
    for stage in stages:
        if stage in seals:
            states[stage] = "done"
        elif store.locked(stage):
            states[stage] = "running"
        else:
            states[stage] = "stopped" if f".{stage.folder}" in present else "missing"
    left = [stage for stage in stages if stage not in seals]
    return StudyOverview(
        groups=tuple(_groups(plan)),
        states=states,
        seconds={s: float(seals[s]["seconds"]) if s in seals else costs.seconds(s) for s in stages},
        wall_seconds=estimate.left(),
        slots=slots,
        memory=slots * max((costs.memory(stage) for stage in left), default=0.0),
        gpu_seconds=sum(costs.unit.gpu_seconds(stage, costs.seconds(stage)) for stage in left),
        storage=sum(costs.storage(stage) for stage in left),
        free_storage=float(shutil.disk_usage(_existing(store.root)).free),
        other_versions=_other_versions(stages, present),
    )


def unused_folders(plans: Iterable[Plan], store: Store) -> list[Path]:
    """Return the folders under a store that no stage of these studies uses and no process works in.

    They are stages of other settings or other code, work that was stopped, what was set aside as damaged, and earlier
    reports of the studies.
    """
    used: set[str] = set()
    folders = [*(store.root / STAGES).iterdir()] if store.present() else []
    for plan in plans:
        used |= {stage.folder for stage in plan.stages()}
        reports = store.path(plan.report).parent  # of this study alone: what else is there is not gentax's
        name = re.escape(plan.report.folder.rpartition("-")[0])
        own = re.compile(rf"(damaged-|\.)?{name}-[0-9a-f]{{12}}(-\d+)?")
        folders += [folder for folder in reports.glob("*") if own.fullmatch(folder.name)]
    return sorted(
        folder
        for folder in set(folders)
        if folder.is_dir() and folder.name.removeprefix(".") not in used and not store.folder_locked(folder)
    )


def _groups(plan: Plan) -> list[StageGroup]:
    groups = [StageGroup("base", tuple(plan.init.values())), StageGroup("random play", tuple(plan.random.values()))]
    after: defaultdict[tuple[str, str, int], list[Stage]] = defaultdict(list)
    for (arm, source, seed, _), stage in plan.after.items():
        after[arm, source, seed].append(stage)
    groups += [StageGroup(stage.title, (stage, *after[cell])) for cell, stage in plan.trained.items()]
    return [*groups, StageGroup("report", (plan.report,))]


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _other_versions(stages: list[Stage], present: frozenset[str]) -> int:
    names = {stage.folder.rpartition("-")[0] for stage in stages if stage.kind != "report"}
    own = {stage.folder for stage in stages}
    return sum(name not in own and name.rpartition("-")[0] in names for name in present)


class StudyProgress(StudyCallback):
    """Shows what is done and how long the whole takes.

    A terminal gets a bar and the stages in progress, lines that go when the study is done. A pipe or a file gets one
    line for each stage as it ends.
    """

    def __init__(self, name: str, console: Console, costs: CostModel | None = None) -> None:
        self.name, self.console, self.costs = one_line(name), console, costs
        self.time = TimeEstimate([], ())
        self.total = self.num_done = self.num_failed = 0  # stages
        self.detail: dict[Stage, str] = {}  # of the stages in progress
        self.elsewhere: set[Stage] = set()  # stages that another run does
        self._live = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(self, console=console, refresh_per_second=REFRESH, transient=True)

    def __enter__(self) -> StudyProgress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __rich__(self) -> RenderableType:
        """Return the lines as they are now."""
        fraction = self.time.fraction_done() if self.total else 0.0
        bar, line = ProgressBar(total=1.0, completed=fraction, width=28), Table.grid(padding=(0, 2))
        left = f"about {clock(self.time.left())} left" if self.total else "starting"
        line.add_row(Text(self.name), bar, Text(f"{fraction:.0%}"), left)
        lines = [f"{self._count(len(self.detail))} {one_line(s.title)}: {d}" for s, d in self.detail.items()][:SHOWN]
        if more := len(self.detail) - len(lines):
            lines.append(f"and {more} more")
        if self.elsewhere:
            lines.append(f"{len(self.elsewhere)} stages are being done by another run")
        if self.num_failed:
            lines.append(f"{self.num_failed} stages failed")
        return Group(line, *(Text(text, no_wrap=True, overflow="ellipsis", style="dim") for text in lines))

    def on_begin(self, stages: Sequence[Stage], done: Collection[Stage], slots: int) -> None:
        self.time = TimeEstimate(stages, done, slots, self.costs)
        self.total, self.num_done = len(stages), len(done)
        if len(done) < len(stages):
            before = f", {len(done)} of them done before" if done else ""
            workers = f" with {slots} workers" if slots > 1 else ""
            self._print(f"study {self.name}: {self.total} stages{before}; about {clock(self.time.left())}{workers}")

    def on_stage_begin(self, stage: Stage) -> None:
        self.detail[stage] = "starting"
        self.time.begin(stage)

    def on_progress(self, stage: Stage, fraction: float, detail: str) -> None:
        self.time.advance(stage, fraction)
        self.detail[stage] = one_line(detail)

    def on_stage_end(self, stage: Stage, outcome: str) -> None:
        self.detail.pop(stage, None)
        self.num_done += 1
        took = self.time.end(stage, counts=stage not in self.elsewhere)
        self.elsewhere.discard(stage)
        left = f"; about {clock(self.time.left())} left" if self.num_done < self.total else ""
        result = f": {one_line(outcome)}" if outcome else ""
        self._print(f"{self._count(0)} {one_line(stage.title)}{result} ({clock(took)}{left})")

    def on_stage_elsewhere(self, stage: Stage) -> None:
        self.detail.pop(stage, None)
        self.elsewhere.add(stage)
        self._print(f"{one_line(stage.title)} is being done by another run")

    def on_stage_failed(self, stage: Stage, why: str) -> None:
        self.detail.pop(stage, None)
        self.num_failed += 1
        self.console.print(Text(f"failed: {one_line(stage.title)}: {one_line(why)}", style="red"), soft_wrap=True)

    def on_damage(self, what: str) -> None:
        self.console.print(Text(f"damaged: {one_line(what)}", style="yellow"), soft_wrap=True)

    def _count(self, in_progress: int) -> str:
        """Return how many stages are done, with those in progress."""
        return f"[{min(self.num_done + in_progress, self.total):>{len(str(self.total))}}/{self.total}]"

    def _print(self, text: str) -> None:
        if self._live is None:
            self.console.print(Text(text), soft_wrap=True)


def clock(seconds: float) -> str:
    """Write a duration as minutes and seconds, with hours where there are any.

    >>> clock(7.6), clock(754), clock(7500)
    ('0:08', '12:34', '2:05:00')
    """
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{format_duration(rest):0>5}" if hours else format_duration(rest)

"""What a study consists of, what of it is done, and what is left: `gentax study plan`."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gentax.studies.costs import CostModel
from gentax.studies.plan import Plan, Stage
from gentax.studies.progress import TimeEstimate
from gentax.studies.store import STAGES, Store

State = Literal["done", "running", "stopped", "missing"]


@dataclass(frozen=True)
class Group:
    """Stages that are shown together: evaluations of the base, or a training run with its evaluations."""

    title: str
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Overview:
    """The stages of a study and their expected costs."""

    groups: tuple[Group, ...]
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


def overview(plan: Plan, store: Store, costs: CostModel, slots: int) -> Overview:
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
    return Overview(
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


def _groups(plan: Plan) -> list[Group]:
    groups = [Group("base", tuple(plan.init.values())), Group("random play", tuple(plan.random.values()))]
    after: defaultdict[tuple[str, str, int], list[Stage]] = defaultdict(list)
    for (arm, source, seed, _), stage in plan.after.items():
        after[arm, source, seed].append(stage)
    groups += [Group(stage.title, (stage, *after[cell])) for cell, stage in plan.trained.items()]
    return [*groups, Group("report", (plan.report,))]


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _other_versions(stages: list[Stage], present: frozenset[str]) -> int:
    names = {stage.folder.rpartition("-")[0] for stage in stages if stage.kind != "report"}
    own = {stage.folder for stage in stages}
    return sum(name not in own and name.rpartition("-")[0] in names for name in present)

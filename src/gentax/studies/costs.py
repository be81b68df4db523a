"""What stages take: seconds, memory and storage, from what earlier stages of their kind took.

The prior is a table of unit costs (`UnitCosts`): those of the model that ships with gentax on one core, or those of
`--costs FILE`. Stages that were done before, under the same folder, scale it: by kind and domain where there are any,
by kind or as a whole otherwise. So the shares of stages come from the table, and the speed of this machine and model
from what it did.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from gentax.core.console import format_duration
from gentax.core.settings import read_settings, read_yaml, settings, shares
from gentax.policies.load import SCRIPTED_BY_NAME
from gentax.studies.plan import Plan, Stage
from gentax.studies.store import Store

SFT_BATCH = 32  # pairs in an update
StageState = Literal["done", "running", "stopped", "missing"]
PRIOR = 20.0  # seconds of a kind of stage after which its own speed counts as much as that of all stages


@settings
class UnitCosts:
    """Unit costs of stages, read off finished studies on one core with bf16 and the model that ships with gentax."""

    episode_seconds: dict[str, NonNegativeFloat] = field(
        default_factory=lambda: {
            "sokoban": 0.020,
            "webshop": 0.035,
            "crafting": 0.010,
            "babyai": 0.065,
            "twx-cooking": 0.040,
            "twx-mapreader": 0.050,
            "alfworld": 0.04,
            "sciworld": 0.21,
        }
    )
    """Seconds to play an episode, by domain."""
    other_episode_seconds: NonNegativeFloat = 0.05
    """Seconds to play an episode in a domain that is not listed."""
    random_play: NonNegativeFloat = 0.3
    """The environment's share of an episode's seconds: what random play takes."""
    gradient_episode_seconds: NonNegativeFloat = 0.01
    """Seconds of a policy-gradient step for each episode, besides playing it."""
    sft_update_seconds: NonNegativeFloat = 0.07
    """Seconds of an update of supervised fine-tuning, on 32 pairs."""
    replay_update_seconds: NonNegativeFloat = 0.18
    """Seconds that replay adds to an update."""
    evaluate_seconds: NonNegativeFloat = 0.3
    """Seconds of an evaluation besides its episodes: loading the model."""
    train_seconds: NonNegativeFloat = 2.0
    """Seconds of a training run besides its updates."""
    report_seconds: NonNegativeFloat = 10.0
    """Seconds of the report."""
    memory_gb: PositiveFloat = 1.2
    """Memory of a stage, GB (10^9 bytes)."""
    train_memory_gb: PositiveFloat = 1.5
    """Memory of a training run, GB."""
    gpus: NonNegativeFloat = 0
    """GPUs of a stage that runs a model; a fraction where several share one."""
    evaluate_storage_gb: NonNegativeFloat = 0.0001
    """Storage of an evaluation, GB."""
    checkpoint_gb: NonNegativeFloat = 0.006
    """Storage of the weights of a checkpoint, GB. A run keeps those of all its checkpoints."""
    source: str = ""
    """Where these numbers come from."""

    def seconds(self, stage: Stage) -> float:
        """Return about how many seconds a stage takes."""
        inputs = stage.inputs
        if stage.kind == "train":
            return self.train_seconds + sum(self.training_seconds(inputs["recipe"]))
        if stage.kind == "report":
            return self.report_seconds
        share = self.random_play if inputs.get("policy") in SCRIPTED_BY_NAME else 1.0
        return self.evaluate_seconds + inputs["tasks"] * inputs["samples"] * share * self._episode(inputs["domain"])

    def training_seconds(self, config: Mapping[str, Any]) -> tuple[float, float]:
        """Return about how many seconds supervised fine-tuning and policy gradient take in a run."""
        sft, phases = config["sft"], config["curriculum"]["phases"]
        replay = self.replay_update_seconds if config["forgetting"]["replay"] else 0.0
        updates = 0.0 if sft is None else sft["max_pairs"] * sft["num_train_epochs"] / SFT_BATCH
        episodes = config["tasks_per_step"] * config["num_generations"]
        steps = 0.0
        for phase in phases or ({"mixture": {config["source"]: 1.0}, "max_steps": config["max_steps"]},):
            parts = shares(phase["mixture"]).items()
            episode = sum(share * self._episode(name) for name, share in parts) + self.gradient_episode_seconds
            steps += phase["max_steps"] * (episodes * episode + replay)
        return updates * (self.sft_update_seconds + replay), steps

    def storage_gb(self, stage: Stage) -> float:
        """Return about how many GB a stage takes on disk."""
        if stage.kind != "train":
            return self.evaluate_storage_gb
        config = stage.inputs["recipe"]
        lengths = [phase["max_steps"] for phase in config["curriculum"]["phases"]] or [config["max_steps"]]
        ends = set(accumulate(lengths))
        saved = ends | set(range(config["save_steps"], max(ends) + 1, config["save_steps"]))
        first = config["sft"] is not None or config["forgetting"]["kl_budget"] is not None  # before the first step
        return len(saved - {0} | ({0} if first else set())) * self.checkpoint_gb

    def gpu_seconds(self, stage: Stage, seconds: float) -> float:
        """Return how many seconds of GPUs a stage takes that lasts so many seconds."""
        return self.gpus * seconds if stage.runs_model else 0.0

    def _episode(self, name: str) -> float:
        """Return the seconds of an episode in `domain` or `domain:level`."""
        return self.episode_seconds.get(name.partition(":")[0], self.other_episode_seconds)


def read_costs(path: str | Path | None) -> UnitCosts:
    """Read unit costs from a YAML file; those of the shipped model where there is none. Raises UsageError."""
    return UnitCosts() if path is None else read_settings(UnitCosts, read_yaml(path) or {}, str(path))


class CostModel:
    """Expected costs of stages: unit costs, scaled by what stages took."""

    def __init__(self, unit: UnitCosts | None = None) -> None:
        self.unit = unit or UnitCosts()
        self._spent: defaultdict[tuple[str, ...], float] = defaultdict(float)  # seconds, by group of stages
        self._expected: defaultdict[tuple[str, ...], float] = defaultdict(float)  # seconds by the table, of the same
        self._sizes: defaultdict[str, list[int]] = defaultdict(list)  # kind -> bytes on disk
        self._memory: defaultdict[str, int] = defaultdict(int)  # kind -> bytes at most

    def count(self, stage: Stage, seconds: float) -> None:
        """Count what a stage took."""
        for group in _groups(stage):
            self._spent[group] += seconds
            self._expected[group] += self.unit.seconds(stage)

    def learn(self, history: Iterable[tuple[Stage, Mapping[str, Any]]]) -> CostModel:
        """Count stages that were done before (`Store.history`); return the model itself.

        A stage that this version of gentax cannot read is left out.
        """
        for stage, seal in history:
            with contextlib.suppress(KeyError, TypeError):
                self.count_seal(stage, seal)
        return self

    def count_seal(self, stage: Stage, seal: Mapping[str, Any]) -> None:
        """Count a finished stage by its seal (`Store.seal`)."""
        self.count(stage, seal["seconds"])
        self._sizes[stage.kind].append(sum(file["bytes"] for file in seal["files"].values()))
        self._memory[stage.kind] = max(self._memory[stage.kind], seal["peak_memory"] or 0)

    def seconds(self, stage: Stage) -> float:
        """Return how many seconds a stage is expected to take.

        The speed of a group of stages counts as much as that of the next larger one after `PRIOR` seconds (partial
        pooling): kind and domain, kind, all.
        """
        slowdown = 1.0
        for group in reversed(_groups(stage)):
            slowdown = (self._spent[group] + PRIOR * slowdown) / (self._expected[group] + PRIOR)
        return slowdown * self.unit.seconds(stage)

    def memory(self, stage: Stage) -> float:
        """Return how many bytes of memory a stage is expected to need at most."""
        prior = self.unit.train_memory_gb if stage.kind == "train" else self.unit.memory_gb
        return float(self._memory[stage.kind] or prior * 1e9)

    def storage(self, stage: Stage) -> float:
        """Return how many bytes on disk a stage is expected to take."""
        if sizes := self._sizes[stage.kind]:
            return sum(sizes) / len(sizes)
        return 1e9 * self.unit.storage_gb(stage)


class TimeEstimate:
    """Estimates the time left of a study while it runs, with `slots` stages at once."""

    def __init__(
        self, stages: Sequence[Stage], done: Iterable[Stage], slots: int = 1, costs: CostModel | None = None
    ) -> None:
        self.costs, self.slots, self.stages = costs or CostModel(), slots, stages
        self.done = set(done)
        self._began: dict[Stage, float] = {}  # stages in progress
        self._fraction: dict[Stage, float] = {}

    def begin(self, stage: Stage) -> None:
        self._began[stage], self._fraction[stage] = time.monotonic(), 0.0

    def advance(self, stage: Stage, fraction: float) -> None:
        """Record how much of a stage in progress is done."""
        self._fraction[stage] = min(max(fraction, 0.0), 1.0)

    def end(self, stage: Stage, *, counts: bool = True) -> float:
        """Take a stage as done; return its seconds, which say something about others if it `counts`: was done here."""
        seconds = time.monotonic() - self._began.pop(stage, time.monotonic())
        self._fraction.pop(stage, None)
        self.done.add(stage)
        if counts:
            self.costs.count(stage, seconds)
        return seconds

    def left(self) -> float:
        """Return about how many seconds are left: the work shared by all slots, or the longest chain of stages."""
        work = self._left_by_stage()
        after: dict[Stage, float] = {}  # of each training run, its longest evaluation
        for stage, seconds in work.items():
            for need in stage.needs if stage.kind == "evaluate" else ():
                after[need] = max(after.get(need, 0.0), seconds)
        report = sum(seconds for stage, seconds in work.items() if stage.kind == "report")
        longest = max((work.get(stage, 0.0) + more for stage, more in after.items()), default=0.0)
        return max((sum(work.values()) - report) / self.slots, longest) + report

    def fraction_done(self) -> float:
        """Return how much of the whole is done, from 0 to 1, by what stages are expected to take."""
        whole = sum(self.costs.unit.seconds(stage) for stage in self.stages)
        left = sum(
            self.costs.unit.seconds(stage) * (1 - self._fraction.get(stage, 0.0))
            for stage in self.stages
            if stage not in self.done
        )
        return 1 - left / whole if whole else 1.0

    def _left_by_stage(self) -> dict[Stage, float]:
        left = {}
        for stage in self.stages:
            if stage in self.done:
                continue
            expected, fraction = self.costs.seconds(stage), self._fraction.get(stage, 0.0)
            if fraction > 0.05:  # its own speed, the more of it is known
                own = (time.monotonic() - self._began[stage]) / fraction
                expected = math.exp(fraction * math.log(max(own, 1e-3)) + (1 - fraction) * math.log(expected))
            left[stage] = expected * (1 - fraction)
        return left


def _groups(stage: Stage) -> list[tuple[str, ...]]:
    """Return the groups whose speed says something about a stage's, the nearest first."""
    inputs = stage.inputs
    if stage.kind == "evaluate":
        player = "scripted" if inputs.get("policy") in SCRIPTED_BY_NAME else "model"
        return [(stage.kind, player, inputs["domain"]), (stage.kind, player), ()]
    return [(stage.kind,), ()]


@dataclass(frozen=True)
class StudyOverview:
    """The stages of a study and their expected costs."""

    groups: dict[str, list[Stage]]  # by title
    states: dict[Stage, StageState]
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
    """Return what a study consists of and what is left, with `slots` stages at once."""
    stages = plan.stages()
    present = store.present()
    seals = {}
    for stage in stages:
        if (stage.kind == "report" or stage.folder in present) and store.has(stage):
            seals[stage] = store.seal(stage)
    estimate = TimeEstimate(stages, seals, slots, costs)
    states: dict[Stage, StageState] = {}
    for stage in stages:
        if stage in seals:
            states[stage] = "done"
        elif store.locked(stage):
            states[stage] = "running"
        else:
            states[stage] = "stopped" if f".{stage.folder}" in present else "missing"
    left = [stage for stage in stages if stage not in seals]
    return StudyOverview(
        groups=plan.groups(),
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


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _other_versions(stages: list[Stage], present: frozenset[str]) -> int:
    names = {stage.folder.rpartition("-")[0] for stage in stages if stage.kind != "report"}
    own = {stage.folder for stage in stages}
    return sum(name not in own and name.rpartition("-")[0] in names for name in present)


def clock(seconds: float) -> str:
    """Write a duration as minutes and seconds, with hours where there are any.

    >>> clock(7.6), clock(754), clock(7500)
    ('0:08', '12:34', '2:05:00')
    """
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{format_duration(rest):0>5}" if hours else format_duration(rest)

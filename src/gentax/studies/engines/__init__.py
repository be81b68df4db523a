"""Where the stages of a study are done: in this process, in workers on this machine, on a Ray cluster, by Slurm.

An engine is handed stages whose needs are done, and says how each ended. All of them do a stage with
`stages.StageRunner`, which locks it in the store, so any number of runs and engines may work on one store.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Protocol

from gentax.core import UsageError, unknown
from gentax.studies.costs import CostModel
from gentax.studies.plan import Plan, Stage
from gentax.studies.stages import StageResult, StageRunner

ENGINES = ("local", "ray", "slurm")


class Engine(Protocol):
    """What does stages."""

    slots: int
    """How many stages are done at once."""
    reports_progress: bool
    """Whether it says itself how far stages are; where not, that is read from the store."""

    def free(self) -> int:
        """Return how many stages could begin now."""
        ...

    def submit(self, stage: Stage) -> None:
        """Begin a stage."""
        ...

    def wait(self, timeout: float) -> list[StageResult]:
        """Return the stages that ended, after `timeout` seconds at the latest."""
        ...

    def close(self, *, stop: bool = False) -> None:
        """End the workers. With `stop`, stages in progress are told to stop where they can be resumed."""
        ...


OnProgress = Callable[[Stage, float, str], None]  # with a stage, the fraction done and what is being done
MakeEngine = Callable[[StageRunner, OnProgress], Engine]


class SerialEngine:
    """One stage after the other, in this process."""

    slots = 1
    reports_progress = True

    def __init__(self, runner: StageRunner, on_progress: OnProgress) -> None:
        self.runner, self.on_progress = runner, on_progress
        self._submitted: deque[Stage] = deque()

    def free(self) -> int:
        return self.slots - len(self._submitted)

    def submit(self, stage: Stage) -> None:
        self._submitted.append(stage)

    def wait(self, timeout: float) -> list[StageResult]:
        stage = self._submitted.popleft()
        return [self.runner.run(stage, lambda fraction, detail: self.on_progress(stage, fraction, detail))]

    def close(self, *, stop: bool = False) -> None:
        self._submitted.clear()


def number_option(options: Mapping[str, str], key: str, default: float) -> float:
    """Return the option of an engine as a number. Raises UsageError where it is none, or is negative or endless."""
    try:
        value = float(options.get(key, default))
    except ValueError:
        value = math.nan
    if not (value >= 0 and math.isfinite(value)) or (key == "gpus" and value > 1 and value % 1):
        kind = "a number; of GPUs a whole one above 1" if key == "gpus" else "a number"
        raise UsageError(f"the option {key} of an engine must be {kind}, not {options.get(key, default)!r}")
    return value


def engine_for(
    name: str,
    plan: Plan,
    costs: CostModel,
    workers: int | None = None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> MakeEngine:
    """Return what makes an engine.

    Args:
        name: one of `ENGINES`.
        plan, costs: of the study.
        workers: how many stages are done at once; None for what the machine or the cluster has room for.
        options: of the engine: `gpus` of a stage; `address` of a Ray cluster; for Slurm what submitit's executor takes.

    Raises:
        UsageError: an engine or an option that does not exist, or a package that is not installed.
    """
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    if name == "ray":
        from gentax.studies.engines.ray import RayEngine

        return partial(RayEngine, costs=costs, slots=workers, options=options)
    if name == "slurm":
        from gentax.studies.engines.slurm import SlurmEngine

        return partial(SlurmEngine, slots=workers, options=options)
    if other := [key for key in options if key != "gpus"]:
        raise UsageError(f"the engine on this machine takes no option {other[0]!r}")
    from gentax.studies.engines.local import LocalEngine, gpus_of_stage

    device = plan.study.device
    gpus = gpus_of_stage(device, costs.unit.gpus, options)

    def local_engine(runner: StageRunner, on_progress: OnProgress) -> Engine:
        slots = workers or default_slots(plan, costs, gpus)
        runner = replace(runner, processes=gpus)
        return SerialEngine(runner, on_progress) if slots == 1 else LocalEngine(runner, slots, device, gpus)

    return local_engine


def default_slots(plan: Plan, costs: CostModel, gpus: int | None = None) -> int:
    """Return how many stages of a study this machine does at once, each on so many GPUs if there are any.

    `gpus` is as `costs` says when None.
    """
    from gentax.studies.engines.local import num_workers

    stages = [stage for stage in plan.stages() if stage.kind != "report"]
    memory = max(costs.memory(stage) for stage in stages)
    gpus = gpus or max(1, int(costs.unit.gpus))
    return min(len(stages), num_workers(memory, plan.study.device, gpus))

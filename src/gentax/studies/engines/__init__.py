"""Where the stages of a study are done: in this process, in workers on this machine, on a Ray cluster, by Slurm.

An engine is handed stages whose needs are done, and says how each ended. All of them do a stage with
`stages.StageRunner`, which locks it in the store, so any number of runs and engines may work on one store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Protocol

from gentax.core import UsageError, unknown
from gentax.studies.costs import CostModel
from gentax.studies.plan import Plan, Stage
from gentax.studies.stages import StageResult, StageRunner


class Engine(Protocol):
    """What does stages."""

    slots: int
    """How many stages are done at once."""

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


OnProgress = Callable[[Stage, float, str], None]
MakeEngine = Callable[[StageRunner, OnProgress], Engine]


class SerialEngine:
    """One stage after the other, in this process.

    Args:
        runner: what does them.
        on_progress: called with a stage, the fraction done and what is being done.
    """

    slots = 1

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


ENGINES = ("local", "ray", "slurm")


def engine_for(
    name: str, plan: Plan, workers: int | None = None, options: Mapping[str, str] = MappingProxyType({})
) -> MakeEngine:
    """Return what makes an engine.

    Args:
        name: one of `ENGINES`.
        plan: of the study.
        workers: how many stages are done at once; None for what the machine or the cluster has room for.
        options: of the engine: `address` of a Ray cluster; for Slurm what submitit's executor takes.

    Raises:
        UsageError: an engine or an option that does not exist, or a package that is not installed.
    """
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    costs, stages = CostModel(), plan.stages()
    if name == "ray":
        from gentax.studies.engines.ray import RayEngine

        return partial(RayEngine, costs=costs, slots=workers, options=options)
    if name == "slurm":
        from gentax.studies.engines.slurm import SlurmEngine

        return partial(SlurmEngine, slots=workers, options=options)
    if options:
        raise UsageError(f"the engine on this machine takes no option {next(iter(options))!r}")
    from gentax.studies.engines.local import LocalEngine, num_workers

    device = plan.study.device
    most = sum(stage.kind != "report" for stage in stages)
    slots = workers or min(most, num_workers(max(costs.memory(stage) for stage in stages), device))
    if slots == 1:
        return SerialEngine
    return lambda runner, on_progress: LocalEngine(runner, slots, device)

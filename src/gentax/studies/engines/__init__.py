"""Where the stages of a study are done: in this process, in workers on this machine, on a Ray cluster, by Slurm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from gentax.core import UsageError, unknown
from gentax.studies.costs import CostModel
from gentax.studies.engines.base import Engine, MakeEngine, OnProgress, SerialEngine
from gentax.studies.plan import Plan
from gentax.studies.stages import StageRunner

ENGINES = ("local", "ray", "slurm")


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
        plan: of the study.
        costs: what its stages take.
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

    Args:
        plan: of the study.
        costs: what its stages take.
        gpus: of a stage; as `costs` says when None.
    """
    from gentax.studies.engines.local import num_workers

    stages = [stage for stage in plan.stages() if stage.kind != "report"]
    memory = max(costs.memory(stage) for stage in stages)
    gpus = gpus or max(1, int(costs.unit.gpus))
    return min(len(stages), num_workers(memory, plan.study.device, gpus))

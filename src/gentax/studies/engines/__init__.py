"""Where the stages of a study are done: in this process, in workers on this machine, on a Ray cluster, by Slurm.

An engine is handed stages whose needs are done, and says how each ended. All of them do a stage with
`stages.StageRunner`, which locks it in the store, so any number of runs and engines may work on one store.
"""

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
    if options:
        gpus_of_stage(device, costs.unit.gpus, options)  # refused before anything is done

    def local_engine(runner: StageRunner, on_progress: OnProgress) -> Engine:
        gpus = gpus_of_stage(device, costs.unit.gpus, options)  # loads PyTorch, which a run with nothing to do need not
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

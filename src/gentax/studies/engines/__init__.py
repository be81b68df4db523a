"""Where the stages of a study are done: in this process, in workers on this machine, on a Ray cluster, by Slurm."""

from __future__ import annotations

from collections.abc import Mapping
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
        options: of the engine: `address` of a Ray cluster; for Slurm what submitit's executor takes.

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
    if options:
        raise UsageError(f"the engine on this machine takes no option {next(iter(options))!r}")
    from gentax.studies.engines.local import LocalEngine

    def local_engine(runner: StageRunner, on_progress: OnProgress) -> Engine:
        slots = workers or default_slots(plan, costs)
        return SerialEngine(runner, on_progress) if slots == 1 else LocalEngine(runner, slots, plan.study.device)

    return local_engine


def default_slots(plan: Plan, costs: CostModel) -> int:
    """Return how many stages of a study this machine does at once."""
    from gentax.studies.engines.local import num_workers

    stages = [stage for stage in plan.stages() if stage.kind != "report"]
    return min(len(stages), num_workers(max(costs.memory(stage) for stage in stages), plan.study.device))

"""Stages as tasks of a Ray cluster, retried when their node is lost."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gentax.core import UsageError, unknown
from gentax.core.imports import require
from gentax.studies.costs import CostModel
from gentax.studies.engines.base import OnProgress, number_option
from gentax.studies.plan import Stage
from gentax.studies.stages import StageResult, StageRunner

RETRIES = 3  # of a stage whose node or process is lost
OPTIONS = ("address", "cpus", "gpus")
PROBE = 60.0  # seconds that each node has to answer
CONNECT = 5.0  # seconds that a cluster has to accept a connection


class RayEngine:
    """A Ray cluster: an existing one by its address, or one that is started on this machine.

    The folder of the study must be at the same path on every node, which is checked before the first stage.

    Args:
        runner: what does a stage; it is sent to the cluster.
        on_progress: not called; progress is read from the store.
        costs: for the memory that a stage asks for.
        slots: how many stages are in flight at once; None for as many as the cluster has CPUs or GPUs for.
        options: `address` (of a running cluster, `auto` for the one on this machine, none to start one), `cpus` and
            `gpus` of a stage that runs a model; a training run gets a process for each of several, others one.

    Raises:
        UsageError: Ray is not installed, the cluster cannot be reached, or its nodes do not share the folder.
    """

    def __init__(
        self,
        runner: StageRunner,
        on_progress: OnProgress,
        *,
        costs: CostModel,
        slots: int | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        ray = require("ray", "the engine ray")
        options = options or {}
        for key in options:
            if key not in OPTIONS:
                raise unknown("option of the engine ray", key, OPTIONS)
        self.ray, self.runner, self.costs = ray, runner, costs
        self.cpus, self.gpus = number_option(options, "cpus", 1.0), number_option(options, "gpus", costs.unit.gpus)
        runner = replace(runner, processes=max(1, int(self.gpus)))
        self._connect(options.get("address"))
        self._runner = ray.put(runner)
        self._running: dict[Any, Stage] = {}
        if not runner.store.shared:
            self._check_shared(runner.store.root)
        resources = ray.cluster_resources()
        by_cpu = int(resources.get("CPU", 1) / self.cpus) if self.cpus else sys.maxsize
        by_gpu = int(resources.get("GPU", 0) / self.gpus) if self.gpus else sys.maxsize
        self.slots = slots or max(1, min(by_cpu, by_gpu))

    def submit(self, stage: Stage) -> None:
        task = self.ray.remote(_run_stage).options(
            name=stage.title,
            num_cpus=self.cpus,
            num_gpus=self.gpus if stage.kind == "train" else min(self.gpus, 1.0) if stage.runs_model else 0,
            memory=int(self.costs.memory(stage)),
            max_retries=RETRIES,
        )
        self._running[task.remote(self._runner, stage)] = stage

    def wait(self, timeout: float) -> list[StageResult]:
        ready, _ = self.ray.wait(list(self._running), num_returns=1, timeout=timeout)
        results = []
        for reference in ready:
            stage = self._running.pop(reference)
            try:
                results.append(self.ray.get(reference))
            except self.ray.exceptions.RayError as fault:
                raised = isinstance(fault, self.ray.exceptions.RayTaskError)  # whose text is a traceback
                text = str(fault).strip().rpartition("\n")[2] if raised else str(fault)
                why = f"{type(fault).__name__} after {RETRIES} retries: {' '.join(text.split())[:300]}"
                results.append(StageResult(stage, "failed", why))
        return results

    def close(self, *, stop: bool = False) -> None:
        for reference in self._running:
            self.ray.cancel(reference, force=False)  # as Ctrl-C: a training run keeps its checkpoint
        if self._running:
            self.ray.wait(list(self._running), num_returns=len(self._running), timeout=PROBE)
        self.ray.shutdown()

    def _connect(self, address: str | None) -> None:
        if self.ray.is_initialized():
            return
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # CPU tasks keep CUDA_VISIBLE_DEVICES
        try:
            if address and (port := urlsplit(f"//{address.rpartition('://')[2]}")).port:  # Ray itself tries for minutes
                socket.create_connection((port.hostname or "", port.port or 0), CONNECT).close()
            dashboard = None if address else False
            self.ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=dashboard)
        except (OSError, ValueError, RuntimeError) as fault:
            why = " ".join(str(fault).split())[:200]
            raise UsageError(f"no Ray cluster answers at {address or 'this machine'}: {why}") from None

    def _check_shared(self, root: Path) -> None:
        """Refuse a folder that a node of the cluster does not see."""
        on_node = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        marker = root.absolute() / f".shared-{uuid.uuid4().hex}"
        marker.write_text("", encoding="utf-8")
        try:
            nodes = [node for node in self.ray.nodes() if node["Alive"]]
            answers = {
                node["NodeManagerAddress"]: self.ray.remote(_sees)
                .options(num_cpus=0, scheduling_strategy=on_node(node["NodeID"], soft=False))
                .remote(str(marker))
                for node in nodes
            }
            for host, answer in answers.items():
                try:
                    shared = self.ray.get(answer, timeout=PROBE)
                except self.ray.exceptions.RayError as fault:
                    why = " ".join(str(fault).split())[:200]
                    raise UsageError(f"the node {host} of the cluster cannot run gentax: {why}") from None
                if not shared:
                    raise UsageError(f"the node {host} does not see {root.absolute()}; give a shared --out")
        except UsageError:
            self.ray.shutdown()
            raise
        finally:
            marker.unlink(missing_ok=True)


def _run_stage(runner: StageRunner, stage: Stage) -> StageResult:
    return runner.run(stage)


def _sees(path: str) -> bool:
    import gentax  # a node without it is found now  # noqa: F401

    return Path(path).exists()

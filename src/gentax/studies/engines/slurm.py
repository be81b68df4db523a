"""Stages as job arrays of Slurm, through submitit.

Stages whose needs are done go into one array; when they have ended, the next ones do. Each job takes its stage from
the store that all nodes share, and seals it there, so the program that submits may be stopped and started again.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gentax.core import UsageError
from gentax.core.imports import require
from gentax.studies.engines.base import OnProgress
from gentax.studies.plan import Stage
from gentax.studies.stages import StageResult, StageRunner

LOGS = "slurm"  # folder of the jobs' logs, in the store
SLOTS = 1000  # jobs of an array at most, where no number of workers is given
GATHER = 2.0  # seconds in which stages are gathered into one array
LOOK = 15.0  # seconds between two looks at the queue, in which a job without a result must be
ANSWER = 60.0  # seconds that the controller has to answer
LAG = 30.0  # seconds after which a result that was written on another machine is visible here


class SlurmEngine:
    """A cluster with Slurm.

    Args:
        runner: what does a stage; submitit sends it to the jobs.
        on_progress: not called; progress is read from the store.
        slots: stages in the queue at once; 1,000 when None.
        options: what submitit's executor takes, as text: `slurm_partition`, `timeout_min`, `mem_gb`,
            `gpus_per_node`, `cpus_per_task` …; `cluster=local` does the jobs on this machine, to try it.

    Raises:
        UsageError: submitit is not installed, there is no Slurm, or an option that submitit does not know.
    """

    def __init__(
        self,
        runner: StageRunner,
        on_progress: OnProgress,
        *,
        slots: int | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        submitit = require("submitit", "the engine slurm")
        values: dict[str, Any] = {key: _typed(value) for key, value in (options or {}).items()}
        cluster = values.pop("cluster", "slurm")
        try:
            self.executor = submitit.AutoExecutor(runner.store.root / LOGS, cluster=cluster)
            self.executor.update_parameters(**{"timeout_min": 24 * 60, "name": "gentax", **values})
        except (RuntimeError, ValueError, NameError, TypeError) as fault:
            raise UsageError(f"the engine slurm: {' '.join(str(fault).split())[:300]}") from None
        gpus = values.get("gpus_per_node", values.get("slurm_gpus_per_node", 1))
        self.runner = replace(runner, processes=max(1, gpus)) if isinstance(gpus, int) else runner
        self.scheduled = cluster == "slurm"
        self.slots = slots or (SLOTS if self.scheduled else os.cpu_count() or 1)
        self._submitted: list[Stage] = []
        self._since = 0.0
        self._jobs: list[tuple[Stage, Any]] = []
        self._looked = 0.0  # when the queue was looked at
        self._missing: dict[str, float] = {}  # jobs that are neither in the queue nor have a result, and since when

    def submit(self, stage: Stage) -> None:
        if not self._submitted:
            self._since = time.monotonic()
        self._submitted.append(stage)

    def wait(self, timeout: float) -> list[StageResult]:
        if self._submitted and (time.monotonic() - self._since >= GATHER or not self._jobs):
            jobs = self.executor.map_array(self.runner.run, self._submitted)
            self._jobs += zip(self._submitted, jobs, strict=True)
            self._submitted = []
            self._looked = time.monotonic()
        time.sleep(timeout)
        if self.scheduled and time.monotonic() - self._looked >= LOOK:
            self._look()
        ended = [(stage, job) for stage, job in self._jobs if self._has_ended(job)]
        self._jobs = [pair for pair in self._jobs if pair not in ended]
        return [self._result(stage, job) for stage, job in ended]

    def close(self, *, stop: bool = False) -> None:
        for _, job in self._jobs:
            job.cancel()

    def _look(self) -> None:
        """Find jobs that left the queue without a result. `sacct`, which submitit asks, needs Slurm's accounting."""
        self._looked = now = time.monotonic()
        command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER, check=True)
        except (OSError, subprocess.SubprocessError):  # a controller that is busy, or down for a while
            return
        missing = {job.job_id for _, job in self._jobs} - set(answer.stdout.split())
        self._missing = {job_id: self._missing.get(job_id, now) for job_id in missing}

    def _has_ended(self, job: Any) -> bool:
        if not self.scheduled:
            return bool(job.done())
        lost = time.monotonic() - self._missing.get(job.job_id, time.monotonic()) >= LAG
        return lost or job.paths.result_pickle.exists()

    def _result(self, stage: Stage, job: Any) -> StageResult:
        if self.scheduled and not job.paths.result_pickle.exists():
            if self.runner.store.has(stage):
                return StageResult(stage, "done")
            with contextlib.suppress(OSError):
                text = job.paths.stderr.read_text(errors="replace").strip()
                if last := text.rpartition("\n")[2].strip()[:300]:
                    return StageResult(stage, "failed", f"job {job.job_id} ended: {last} (see {job.paths.stderr})")
            return StageResult(stage, "failed", f"job {job.job_id} ended without a word: cancelled, or out of memory?")
        if (fault := job.exception()) is None:
            result: StageResult = job.result()
            return result
        if self.runner.store.has(stage):  # done, and lost on the way back
            return StageResult(stage, "done")
        lines = str(fault).strip().splitlines() or [type(fault).__name__]
        return StageResult(stage, "failed", f"job {job.job_id}: {lines[-1][:300]} (see {job.paths.stderr})")


def _typed(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text

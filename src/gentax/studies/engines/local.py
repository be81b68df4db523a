"""Workers on this machine: a process for each core or GPU, as far as memory allows."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import IO

import psutil

from gentax.core import UsageError
from gentax.studies.engines.base import number_option
from gentax.studies.plan import Stage
from gentax.studies.stages import StageResult, StageRunner

ATTEMPTS = 3  # to do a stage whose process dies
READY = "ready"  # what a worker says before its first stage
TAIL = 4096  # bytes of standard error in which the last line is looked for
GRACE = 300.0  # seconds that a training run has for the step in flight and its checkpoint when it is told to stop


def num_workers(memory: float, device: str, gpus: int = 1) -> int:
    """Return how many stages of at most `memory` bytes this machine does at once: one for each GPU or core."""
    if there := _num_gpus(device):
        return max(1, there // gpus)
    by_memory = int(psutil.virtual_memory().available / memory)
    return max(1, min(_cores(), by_memory))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _num_gpus(device: str) -> int:
    """Return how many GPUs stages may be spread over; 0 where they do not use any, or name one."""
    if device not in ("auto", "cuda"):
        return 0
    import torch

    return torch.cuda.device_count()


def gpus_of_stage(device: str, by_costs: float, options: Mapping[str, str]) -> int:
    """Return how many GPUs a training run gets here, 1 where there are none. Raises UsageError for too many."""
    there = _num_gpus(device)
    gpus = number_option(options, "gpus", by_costs if there else 0)
    if gpus > max(there, 1):
        raise UsageError(f"a stage asks for {gpus:g} GPUs, and this machine has {there} for device {device}")
    return max(1, int(gpus))


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    gpus: tuple[int, ...]
    errors: IO[bytes]  # what it writes to standard error
    ready: bool = False  # whether it could be started
    stage: Stage | None = None


class LocalEngine:
    """Worker processes, each with its share of the cores and of the GPUs.

    A worker that dies (killed, out of memory, a crash in a library) is replaced and its stage done again, three times
    at most; one that cannot even start for want of a module ends the study. The workers end when this process does,
    however it ends.

    Each gets `gpus` of those that the study's `device` means, if there are any.
    """

    def __init__(self, runner: StageRunner, workers: int, device: str = "auto", gpus: int = 1) -> None:
        if workers < 1:
            raise UsageError(f"a study needs at least one worker, not {workers}")
        self.runner, self.slots = runner, workers
        self._threads = max(1, _cores() // workers)
        self._context = multiprocessing.get_context("spawn")
        self._attempts: Counter[Stage] = Counter()
        groups = _num_gpus(device) // gpus
        firsts = [gpus * (number % groups) if groups else None for number in range(workers)]
        self._workers = [self._start(() if at is None else tuple(range(at, at + gpus))) for at in firsts]

    def submit(self, stage: Stage) -> None:
        worker = next(worker for worker in self._workers if worker.stage is None)
        if not worker.process.is_alive():
            worker = self._replace(worker)
        self._attempts[stage] += 1
        self._send(worker, stage)

    def wait(self, timeout: float) -> list[StageResult]:
        busy = [worker for worker in self._workers if worker.stage is not None]
        handles = [handle for worker in busy for handle in (worker.connection, worker.process.sentinel)]
        ready = set(wait(handles, timeout)) if handles else set()
        results = []
        for worker in busy:
            assert worker.stage is not None
            if worker.connection in ready or worker.process.sentinel in ready:
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    result = self._lost(worker)
                    results += [result] if result is not None else []
                    continue
                if message == READY:
                    worker.ready = True
                else:
                    worker.stage = None
                    results.append(message)
        return results

    def close(self, *, stop: bool = False) -> None:
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.connection.send(None)
            if stop and worker.stage is not None and worker.process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.process.pid, signal.SIGINT)
        try:
            deadline = time.monotonic() + GRACE
            for worker in self._workers:
                worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:  # also when somebody does not want to wait
            for worker in self._workers:
                worker.process.kill()

    def _start(self, gpus: tuple[int, ...]) -> _Worker:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_work, args=(there, self.runner), daemon=False)
        changes = {"OMP_NUM_THREADS": str(self._threads)}
        if gpus:
            visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
            changes["CUDA_VISIBLE_DEVICES"] = ",".join(visible[n] if n < len(visible) else str(n) for n in gpus)
        errors = tempfile.TemporaryFile("a+b")  # noqa: SIM115  the worker has it as long as it lives
        try:
            with _inherited(changes, errors):
                process.start()
        except OSError as fault:
            raise UsageError(f"cannot start a worker: {fault.strerror or fault}") from None
        there.close()
        return _Worker(process, here, gpus, errors)

    def _replace(self, worker: _Worker) -> _Worker:
        worker.connection.close()
        worker.errors.close()
        vars(worker).update(vars(self._start(worker.gpus)))
        return worker

    def _send(self, worker: _Worker, stage: Stage) -> None:
        worker.stage = stage
        with contextlib.suppress(OSError):  # it died just now, which `wait` sees
            worker.connection.send(stage)

    def _lost(self, worker: _Worker) -> StageResult | None:
        """Do the stage of a worker that died again, or say that it has failed."""
        assert worker.stage is not None
        stage, why, started = worker.stage, _death(worker), worker.ready
        refused = not started and (worker.process.exitcode or 0) > 0  # which it would do each time
        self._replace(worker)
        if self._attempts[stage] < ATTEMPTS and not refused:
            self._attempts[stage] += 1
            self._send(worker, stage)
            return None
        if not started:
            return StageResult(stage, "failed", f"workers cannot start: {why}", fatal=True)
        return StageResult(stage, "failed", f"the process that did it died, {ATTEMPTS} times: {why}")


def _death(worker: _Worker) -> str:
    """Say in one line what a worker died of: how it ended, and the last thing that it wrote."""
    worker.process.join(GRACE)
    code = worker.process.exitcode
    worker.errors.seek(max(0, worker.errors.seek(0, os.SEEK_END) - TAIL))
    last = worker.errors.read().decode(errors="replace").strip().rpartition("\n")[2].strip()[:300]
    if code is not None and code < 0:
        ended = f"killed by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            ended += "; is there enough memory for so many --workers?"
    else:
        ended = f"exit code {code}"
    return f"{last} ({ended})" if last else ended


@contextlib.contextmanager
def _inherited(changes: Mapping[str, str], errors: IO[bytes]) -> Iterator[None]:
    """Change environment variables and standard error for a while; processes that are started then inherit them."""
    before = {name: os.environ.get(name) for name in changes}
    own = os.dup(2)
    os.environ.update(changes)
    os.dup2(errors.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(own, 2)
        os.close(own)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(connection: Connection, runner: StageRunner) -> None:
    """Do stages until there are no more."""
    os.setsid()  # Ctrl-C in a terminal is for the process that started this one, which passes it on
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt, EOFError, OSError):
        connection.send(READY)
        while (stage := connection.recv()) is not None:
            connection.send(runner.run(stage))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)

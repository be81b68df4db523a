"""Workers on this machine: a process for each core or GPU, as far as memory allows."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import psutil

from gentax.core import UsageError
from gentax.studies.plan import Stage
from gentax.studies.stages import StageResult, StageRunner

ATTEMPTS = 3  # to do a stage whose process dies
GRACE = 300.0  # seconds that a training run has for the step in flight and its checkpoint when it is told to stop


def num_workers(memory: float, device: str) -> int:
    """Return how many stages this machine does at once: one for each GPU, or each core, that memory is enough for.

    Args:
        memory: bytes that the largest stage needs.
        device: of the study.
    """
    if gpus := _num_gpus(device):
        return gpus
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


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    gpu: int | None
    stage: Stage | None = None


class LocalEngine:
    """Worker processes, each with its share of the cores and at most one GPU.

    A worker that dies (killed, out of memory, a crash in a library) is replaced and its stage done again, three times
    at most. The workers end when this process does, however it ends.

    Args:
        runner: what does a stage; it is sent to the workers.
        workers: how many.
        device: of the study, for the GPUs.
    """

    def __init__(self, runner: StageRunner, workers: int, device: str = "auto") -> None:
        if workers < 1:
            raise UsageError(f"a study needs at least one worker, not {workers}")
        self.runner, self.slots = runner, workers
        self._threads = max(1, _cores() // workers)
        self._context = multiprocessing.get_context("spawn")
        self._attempts: Counter[Stage] = Counter()
        gpus = _num_gpus(device)
        self._workers = [self._start(number % gpus if gpus else None) for number in range(workers)]

    def free(self) -> int:
        return sum(worker.stage is None for worker in self._workers)

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
                stage, worker.stage = worker.stage, None
                try:
                    results.append(worker.connection.recv())
                except (EOFError, OSError):
                    worker.process.join(1.0)
                    ended = worker.process.exitcode
                    result = self._lost(stage, self._replace(worker), ended)
                    results += [result] if result is not None else []
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

    def _start(self, gpu: int | None) -> _Worker:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_work, args=(there, self.runner), daemon=False)
        changes = {"OMP_NUM_THREADS": str(self._threads)}
        if gpu is not None:
            visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
            changes["CUDA_VISIBLE_DEVICES"] = visible[gpu] if gpu < len(visible) else str(gpu)
        with _environment(changes):
            process.start()
        there.close()
        return _Worker(process, here, gpu)

    def _replace(self, worker: _Worker) -> _Worker:
        new = self._start(worker.gpu)
        worker.process.join(1.0)
        new.process, worker.process = worker.process, new.process
        new.connection, worker.connection = worker.connection, new.connection
        new.connection.close()
        return worker

    def _send(self, worker: _Worker, stage: Stage) -> None:
        worker.stage = stage
        with contextlib.suppress(OSError):  # it died just now, which `wait` sees
            worker.connection.send(stage)

    def _lost(self, stage: Stage, worker: _Worker, exit_code: int | None) -> StageResult | None:
        """Do the stage of a worker that died again, or say that it has failed."""
        if self._attempts[stage] < ATTEMPTS:
            self._attempts[stage] += 1
            self._send(worker, stage)
            return None
        return StageResult(stage, "failed", f"{_describe_end(exit_code)} ({ATTEMPTS} attempts)")


def _describe_end(exit_code: int | None) -> str:
    """Say how a worker ended, and what that usually means."""
    if exit_code == -signal.SIGKILL:
        return "its worker was killed each time: is there enough memory for so many --workers?"
    if exit_code is not None and exit_code < 0:
        return f"its worker crashed each time ({signal.Signals(-exit_code).name}), most likely in a compiled library"
    return f"its worker ended each time with exit code {exit_code}; what it printed is above"


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Change environment variables for a while; processes that are started then inherit them."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
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
        while (stage := connection.recv()) is not None:
            connection.send(runner.run(stage))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)

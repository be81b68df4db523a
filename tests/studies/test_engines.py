"""A study done by workers, by jobs of Slurm or on a Ray cluster has the same results as in one process."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import psutil
import pytest

from gentax.core import UsageError
from gentax.core.errors import StudyIncomplete
from gentax.studies import StudyCallback, StudyRun, read_study
from gentax.studies.costs import CostModel, UnitCosts
from gentax.studies.engines import engine_for
from gentax.studies.engines.local import LocalEngine
from gentax.studies.engines.ray import RayEngine
from gentax.studies.engines.slurm import SlurmEngine
from gentax.studies.plan import Stage, make_plan
from gentax.studies.remote import open_store
from gentax.studies.stages import StageResult, StageRunner
from gentax.studies.store import Store

pytestmark = pytest.mark.slow

STUDY = """
name: engines
domains:
  crafting: {tasks: 4}
  sokoban: {tasks: 4}
sources: [crafting]
arms:
  plain: {}
  short: {max_steps: 1}
train: {max_steps: 3, tasks_per_step: 2, num_generations: 2, eval_steps: 0, save_steps: 1}
"""


class Recorder(StudyCallback):
    def __init__(self):
        self.ended, self.elsewhere, self.damage = [], [], []

    def on_stage_end(self, stage, outcome):
        self.ended.append(stage.title)

    def on_stage_elsewhere(self, stage):
        self.elsewhere.append(stage)

    def on_damage(self, what):
        self.damage.append(what)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    file = tmp_path_factory.mktemp("study") / "engines.yaml"
    file.write_text(STUDY)
    return file


@pytest.fixture(scope="module")
def alone(study, tmp_path_factory):
    """The study, done in this process: its folder."""
    out = tmp_path_factory.mktemp("alone")
    StudyRun(read_study(study), out).run()
    return out


def results(out: Path) -> bytes:
    (file,) = out.glob("engines/report-*/results.json")
    return file.read_bytes()


def run(study: Path, out: Path | str, name: str, workers: int, **options: str) -> Recorder:
    recorder = Recorder()
    study_run = StudyRun(read_study(study), out, recorder)
    study_run.make_engine = engine_for(name, study_run.plan, CostModel(), workers, options)
    study_run.run()
    return recorder


def test_workers_come_to_the_same_results(study, alone, tmp_path):
    recorder = run(study, tmp_path, "local", 2)
    assert len(recorder.ended) == 11
    assert results(tmp_path) == results(alone)


def test_a_worker_that_is_killed_is_replaced(study, alone, tmp_path):
    def kill_one():
        while True:
            time.sleep(0.2)
            if list(tmp_path.glob("running/*.json")):
                psutil.Process().children()[-1].send_signal(signal.SIGKILL)
                return

    thread = threading.Thread(target=kill_one)
    thread.start()
    run(study, tmp_path, "local", 2)
    thread.join()
    assert results(tmp_path) == results(alone)


def test_two_runs_at_once_share_the_work(study, alone, tmp_path):
    command = [sys.executable, "-m", "gentax", "study", "run", str(study), "--out", str(tmp_path), "--workers", "1"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    logs = [process.communicate(timeout=500)[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0], logs
    assert results(tmp_path) == results(alone)
    assert not list((tmp_path / "stages").glob("damaged-*"))


def test_killed_runs_go_on_and_finish(study, alone, tmp_path):
    command = [sys.executable, "-m", "gentax", "study", "run", str(study), "--out", str(tmp_path), "--workers", "2"]
    seen = 0
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(tmp_path.glob("stages/*/stage.json"))) <= seen:
            time.sleep(0.05)
        process.kill()
        process.wait()
        seen = len(list(tmp_path.glob("stages/*/stage.json")))
    run(study, tmp_path, "local", 1)
    assert results(tmp_path) == results(alone)
    assert not list(tmp_path.glob("stages/.*"))


def test_a_stage_that_fails_leaves_the_others_done(study, tmp_path, monkeypatch):
    evaluate = StageRunner._evaluate

    def broken(self, stage, on_progress):
        if stage.needs and stage.inputs["domain"] == "crafting":
            raise RuntimeError("no luck")
        return evaluate(self, stage, on_progress)

    monkeypatch.setattr(StageRunner, "_evaluate", broken)
    with pytest.raises(StudyIncomplete, match=r"plain on crafting: RuntimeError: no luck .* and 1 more stages failed"):
        run(study, tmp_path, "local", 1)
    monkeypatch.undo()
    assert len(run(study, tmp_path, "local", 1).ended) == 3  # the two, and the report


def test_a_full_disk_ends_the_study_in_one_line(study, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("gentax.studies.stages.write_episodes", full)
    with pytest.raises(
        StudyIncomplete, match=r"^base on crafting: the disk is full \(.*No space left.*stages are left"
    ):
        run(study, tmp_path, "local", 1)


@pytest.mark.parametrize("name", ["model.safetensors", "scores.json", "results.json"])
def test_a_flipped_byte_costs_its_stage_alone(study, alone, tmp_path, name):
    """Though the file's size and time are as before: it is found when it is read."""
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    plan, store = make_plan(read_study(study)), Store(tmp_path)
    evaluation = next(iter(plan.after.values()))
    if name == "model.safetensors":  # which is read where it is to be evaluated
        shutil.rmtree(store.path(evaluation))
    damaged = {"model.safetensors": evaluation.needs[0], "scores.json": evaluation, "results.json": plan.report}[name]
    file = sorted(store.path(damaged).rglob(name))[-1]
    content, before = bytearray(file.read_bytes()), file.stat()
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    recorder = run(study, tmp_path, "local", 1)
    assert len(recorder.ended) == (2 if name == "model.safetensors" else 1)
    assert name in recorder.damage[0]
    assert results(tmp_path) == results(alone)


def test_a_machine_evaluates_what_another_one_trained(study, alone, tmp_path, monkeypatch):
    plan, url = make_plan(read_study(study)), "memory://gentax-trained/runs"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "first"))
    first = open_store(url)
    first.open()
    for stage in (*plan.init.values(), *plan.random.values(), *plan.trained.values()):
        folder = first.fresh_folder(stage)
        shutil.copytree(Store(alone).path(stage), folder, dirs_exist_ok=True)
        first.finish(stage, folder, 1.0, None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "second"))
    recorder = run(study, url, "local", 1)
    assert len(recorder.ended) == len(plan.after) + 1
    assert results(open_store(url).root) == results(alone)
    first.files.rm("/gentax-trained", recursive=True)


def test_jobs_of_a_scheduler_come_to_the_same_results(study, alone, tmp_path):
    pytest.importorskip("submitit")
    run(study, tmp_path, "slurm", 2, cluster="local")
    assert results(tmp_path) == results(alone)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("locl", {}, "did you mean 'local'"),
        ("local", {"address": "x"}, "takes no option 'address'"),
        ("ray", {"adress": "x"}, "did you mean 'address'"),
        ("ray", {"cpus": "two"}, "must be a number"),
        ("ray", {"address": "127.0.0.1:1"}, "no Ray cluster answers at 127.0.0.1:1"),
        ("slurm", {"nodez": "1", "cluster": "local"}, "nodez"),
    ],
)
def test_engines_that_cannot_be_had_are_refused(study, tmp_path, name, options, says):
    if name in ("ray", "slurm"):
        pytest.importorskip({"ray": "ray", "slurm": "submitit"}[name])
    with pytest.raises(UsageError, match=says):
        run(study, tmp_path, name, 1, **options)


def test_nothing_of_a_study_is_left_running(study, tmp_path):
    command = [sys.executable, "-m", "gentax", "study", "run", str(study), "--out", str(tmp_path), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("running/*.json")):
        assert process.poll() is None
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, 20)
    assert not alive


class CannotBeLoaded:
    """A runner that needs a module which its worker does not find."""

    def __reduce__(self):
        return importlib.import_module, ("no_such_module",)


class KillsItsProcess:
    def run(self, stage):
        os.kill(os.getpid(), signal.SIGKILL)


@dataclasses.dataclass(frozen=True)
class SaysWhatItGot:
    """A runner that returns the GPUs of its process, and how many processes a training run would have."""

    processes: int = 1
    store: ClassVar = SimpleNamespace(shared=True)

    def run(self, stage):
        return StageResult(stage, "done", f"{os.environ.get('CUDA_VISIBLE_DEVICES')}, {self.processes} processes")


def done_by(engine, *stages: Stage) -> list[StageResult]:
    """Return how stages ended, in their order; all are begun at once."""
    for stage in stages:
        engine.submit(stage)
    ended = []
    while len(ended) < len(stages):
        ended += engine.wait(10)
    engine.close()
    return sorted(ended, key=lambda result: stages.index(result.stage))


STAGES = Stage("train", "toy", {}), Stage("train", "other", {})


def test_a_worker_that_cannot_start_ends_the_study_and_says_why(monkeypatch):
    start, started = LocalEngine._start, []

    def counted(self, gpus):
        started.append(start(self, gpus))
        started[-1].process.join()  # it is dead before it is handed a stage
        return started[-1]

    monkeypatch.setattr(LocalEngine, "_start", counted)
    (result,) = done_by(LocalEngine(CannotBeLoaded(), 1, "cpu"), STAGES[0])
    assert (result.status, result.fatal) == ("failed", True)
    assert result.detail == "workers cannot start: ModuleNotFoundError: No module named 'no_such_module' (exit code 1)"
    assert len(started) <= 3


def test_a_worker_that_is_killed_each_time_is_an_error_of_the_stage():
    (result,) = done_by(LocalEngine(KillsItsProcess(), 1, "cpu"), STAGES[0])
    assert (result.status, result.fatal) == ("failed", False)
    assert "died, 3 times: killed by SIGKILL; is there enough memory" in result.detail


def test_workers_divide_the_gpus_among_them(monkeypatch):
    monkeypatch.setattr("gentax.studies.engines.local._num_gpus", lambda device: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7")
    options = {"gpus": "2"}
    plan = SimpleNamespace(study=SimpleNamespace(device="cuda"), stages=lambda: STAGES)
    costs = SimpleNamespace(unit=UnitCosts(), memory=lambda stage: 1e9)
    engine = engine_for("local", plan, costs, options=options)(SaysWhatItGot(), None)
    said = [result.detail for result in done_by(engine, *STAGES)]
    assert sorted(said) == ["3,5, 2 processes", "6,7, 2 processes"]
    with pytest.raises(UsageError, match="asks for 8 GPUs, and this machine has 4"):
        engine_for("local", plan, costs, options={"gpus": "8"})


def test_a_training_run_on_ray_asks_for_its_gpus_and_an_evaluation_for_one():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    costs = SimpleNamespace(unit=UnitCosts(), memory=lambda stage: 1e6)
    engine = RayEngine(SaysWhatItGot(), None, costs=costs, options={"gpus": "2"})
    train, evaluate = done_by(engine, STAGES[0], Stage("evaluate", "toy", {}))
    assert train.detail == "0,1, 2 processes"
    assert evaluate.detail in ("0, 2 processes", "1, 2 processes")


def test_a_training_run_of_two_processes_goes_through_torchrun(study, tmp_path, monkeypatch):
    commands, popen = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **more: commands.append(command) or popen(command, **more))
    of = dataclasses.replace(read_study(study), device="cpu")
    (first, *_), store = make_plan(of).trained.values(), Store(tmp_path)
    seen = []
    result = StageRunner(of, store, processes=2).run(first, lambda fraction, detail: seen.append(detail))
    assert (result.status, result.detail) == ("done", "")
    assert "--nproc-per-node=2" in commands[0]
    assert len((store.path(first) / "metrics.jsonl").read_text().splitlines()) == 3
    assert any(detail.startswith("policy gradient, step") for detail in seen)
    assert not store.leftovers()
    broken = dataclasses.replace(of, device="cuda")  # which is not there
    (first, *_) = make_plan(broken).trained.values()
    failed = StageRunner(broken, Store(tmp_path / "broken"), processes=2).run(first)
    assert failed.status == "failed"
    assert "device cuda is not there" in failed.detail
    assert "\n" not in failed.detail


def test_a_job_that_leaves_the_queue_without_a_result_has_failed(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho 8\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("LOOK", "LAG"):
        monkeypatch.setattr(f"gentax.studies.engines.slurm.{name}", 0.0)
    engine = SlurmEngine(StageRunner(None, Store(tmp_path)), None, options={"cluster": "local"})
    engine.scheduled = True
    (tmp_path / "err").write_text("slurmstepd: error: Detected 1 oom_kill event\n")
    paths = SimpleNamespace(result_pickle=tmp_path / "none", stderr=tmp_path / "err")
    engine._jobs = [
        (stage, SimpleNamespace(job_id=name, paths=paths)) for stage, name in zip(STAGES, "78", strict=True)
    ]
    (lost,) = engine.wait(0)
    assert (lost.stage, lost.status) == (STAGES[0], "failed")
    assert lost.detail.startswith("job 7 ended: slurmstepd: error: Detected 1 oom_kill event (see ")

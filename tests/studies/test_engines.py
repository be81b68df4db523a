"""A study done by workers, by jobs of Slurm or on a Ray cluster has the same results as in one process."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from gentax.core import UsageError
from gentax.core.errors import StudyIncomplete
from gentax.studies import StudyCallback, StudyRun, read_study
from gentax.studies.costs import CostModel
from gentax.studies.engines import engine_for
from gentax.studies.engines.local import LocalEngine
from gentax.studies.plan import Stage

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


def run(study: Path, out: Path, name: str, workers: int, **options: str) -> Recorder:
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
    from gentax.studies.stages import StageRunner

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


def test_a_flipped_byte_costs_its_stage_alone(study, alone, tmp_path):
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    weights = sorted(tmp_path.glob("stages/train-*/step-*/model.safetensors"))[-1]
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    recorder = run(study, tmp_path, "local", 1)
    assert len(recorder.ended) == 1
    assert "model.safetensors" in recorder.damage[0]
    assert results(tmp_path) == results(alone)


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


class DiesWhenItArrives:
    """A runner whose worker dies before it can be handed a stage."""

    def __init__(self, end, *args):
        self.end, self.args = end, args

    def __reduce__(self):
        return self.end, self.args


@pytest.mark.parametrize(
    ("runner", "says"),
    [
        (DiesWhenItArrives(os._exit, 7), "exit code 7"),
        (DiesWhenItArrives(signal.raise_signal, signal.SIGKILL), "killed .* enough memory"),
        (DiesWhenItArrives(signal.raise_signal, signal.SIGABRT), "crashed .*SIGABRT"),
    ],
)
def test_workers_that_cannot_start_are_an_error_of_the_stage_that_says_how_they_ended(monkeypatch, runner, says):
    start = LocalEngine._start

    def start_and_die(self, gpu):
        worker = start(self, gpu)
        worker.process.join()
        return worker

    monkeypatch.setattr(LocalEngine, "_start", start_and_die)
    stage = Stage("evaluate", "toy", {})
    engine = LocalEngine(runner, 1, "cpu")
    engine.submit(stage)
    ended = []
    while not ended:
        ended = engine.wait(10)
    engine.close()
    assert [(result.stage, result.status) for result in ended] == [(stage, "failed")]
    assert re.search(says, ended[0].detail)

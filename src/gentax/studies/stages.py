"""Doing one stage of a study: an evaluation or a training run, locked in the store while it is done."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml

from gentax.core import EnvironmentFault, Episode, NonFiniteLoss, UsageError
from gentax.core.episode import EPISODES_FILE, write_episodes
from gentax.core.errors import PolicyFault
from gentax.core.files import write_json
from gentax.core.settings import plain
from gentax.metrics.episode_scores import content_labels, task_success
from gentax.studies.costs import UnitCosts
from gentax.studies.plan import RANDOM, Stage
from gentax.studies.store import DamagedStage, StageLocked, Store, StoreUnavailable
from gentax.studies.study import Study
from gentax.training import TrainConfig

SCORES = "scores.json"  # of an evaluation: what the study's numbers are computed from
REPORT_EVERY = 0.5  # seconds between two notes of how far a stage is
STOP = 300.0  # seconds that several processes have for the step in flight when they are told to stop
Progress = Callable[[float, str], None]  # the fraction done, and what is being done


def peak_memory() -> int:
    """Return the most memory that this process has held at once, in bytes; on Linux since `clear_refs` was written.

    Linux's `ru_maxrss` will not do: a process inherits it from the one that started it, and nothing sets it back.
    """
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@dataclass(frozen=True)
class StageResult:
    """How the attempt to do a stage ended."""

    stage: Stage
    status: Literal["done", "locked", "blocked", "failed"]  # locked by another process; without a stage that it needs
    detail: str = ""  # the outcome in a few words, or what went wrong
    fatal: bool = False  # other stages would fail as well: the disk is full, or the store out of reach
    damaged: tuple[str, ...] = ()  # what was found damaged on the way


@dataclass(frozen=True)
class StageRunner:
    """Does evaluations and training runs of one study.

    Args:
        study: the study.
        store: where the stages are.
        parallel: episodes in flight at once; None for as many as memory holds.
        stop_if_unreadable: see `evaluate`; of the base alone.
        processes: of a training run, each with a GPU of its own where there are any.
    """

    study: Study
    store: Store
    parallel: int | None = None
    stop_if_unreadable: bool = True
    processes: int = 1

    def run(self, stage: Stage, on_progress: Progress = lambda fraction, detail: None) -> StageResult:
        """Do a stage, unless it is done or another process does it. What goes wrong is returned, not raised."""
        store = self.store
        try:
            with store.lock(stage):
                if store.has(stage):
                    return StageResult(stage, "done", self._outcome(stage), damaged=store.take_damaged())
                if not all(map(self._loadable, stage.needs)):
                    return StageResult(stage, "blocked", damaged=store.take_damaged())
                self._do(stage, _throttled(store, stage, on_progress))
                return StageResult(stage, "done", self._outcome(stage), damaged=store.take_damaged())
        except StageLocked:
            return StageResult(stage, "locked")
        except Exception as fault:  # the rest of the study goes on
            fatal = isinstance(fault, StoreUnavailable) or (isinstance(fault, OSError) and fault.errno == errno.ENOSPC)
            return StageResult(stage, "failed", _explain(fault, store.running(stage, "log")), fatal=fatal)

    def _loadable(self, training: Stage) -> bool:
        """Return whether a training run is done, after hashing the model that is about to be loaded."""
        if not self.store.has(training):
            return False
        try:
            self.store.check(training, f"{self.store.json(training, 'done.json')['result']}/")
        except DamagedStage:
            return False
        return True

    def _do(self, stage: Stage, on_progress: Progress) -> None:
        on_progress(0.0, "starting")
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # Linux: begin to count the peak of memory again (proc(5))
        started = time.monotonic()
        folder = self._train(stage, on_progress) if stage.kind == "train" else self._evaluate(stage, on_progress)
        seconds = time.monotonic() - started
        alone = stage.kind != "train" or self.processes == 1
        self.store.finish(stage, folder, seconds, peak_memory() if alone else None)

    def _evaluate(self, stage: Stage, on_progress: Progress) -> Path:
        from gentax.evals.evaluate import evaluate, tasks_of  # a run with nothing to do loads no PyTorch
        from gentax.training.run_folder import latest_model

        inputs, study = stage.inputs, self.study
        name, levels = inputs["domain"], {inputs["domain"]: inputs["level"]}
        policy = latest_model(self.store.path(stage.needs[0])) if stage.needs else inputs.get("policy", study.model)
        total = len(tasks_of(levels, inputs["tasks"], inputs["split"])[name]) * inputs["samples"]
        count = 0

        def on_episode(_: Episode) -> None:
            nonlocal count
            count += 1
            on_progress(count / total, f"{count}/{total} episodes")

        folder = self.store.fresh_folder(stage)
        result = evaluate(
            policy,
            levels,
            tasks=inputs["tasks"],
            split=inputs["split"],
            samples=inputs["samples"],
            config=study.evaluate,
            model=study.options,
            parallel=self.parallel,
            on_episode=on_episode,
            stop_if_unreadable=self.stop_if_unreadable and not stage.needs and inputs.get("policy") != RANDOM,
            progress=False,
        )
        episodes = result.episodes[name]
        write_episodes(folder / EPISODES_FILE, episodes)
        success = [None if np.isnan(value) else float(value) for value in task_success(episodes)]
        write_json(folder / SCORES, {"success": success, "content": content_labels(episodes)})
        write_json(folder / "summary.json", result.to_json())
        return folder

    def _train(self, stage: Stage, on_progress: Progress) -> Path:
        from gentax.training import train
        from gentax.training.run_folder import STATE as TRAINING_STATE

        assert stage.cell is not None
        arm, source, seed = stage.cell
        config = self.study.train_config(source, arm, seed)
        sft, policy_gradient = UnitCosts().training_seconds(stage.inputs["recipe"])
        fraction = 0.0

        def on_status(text: str) -> None:
            on_progress(fraction, text.strip())

        def on_step(metrics: Mapping[str, float]) -> None:
            nonlocal fraction
            if "sft_step" in metrics:
                step, steps = metrics["sft_step"], metrics["of"]
                done, detail = sft * step / max(1.0, steps), f"supervised, update {step:.0f}/{steps:.0f}"
                detail += f", loss {metrics['loss']:.3f}"
            else:
                step, steps = metrics["step"], config.updates
                done = sft + policy_gradient * step / max(1, steps)
                detail = f"policy gradient, step {step:.0f}/{steps}, success {metrics['success']:.0%}"
            fraction = done / max(1e-9, sft + policy_gradient)
            on_progress(fraction, detail)

        working = self.store.working_folder(stage)
        if self.processes == 1:
            train(
                config,
                working,
                on_step,
                device=self.study.device,
                parallel=self.parallel,
                progress=False,
                on_status=on_status,
            )
        else:
            options = ["--device", self.study.device]
            options += ["--parallel", str(self.parallel)] if self.parallel is not None else []
            _train_with_torchrun(config, working, options, self.processes, on_step)
        for state in working.glob(f"*/{TRAINING_STATE}"):  # nothing continues a finished run
            state.unlink()
        return working

    def _outcome(self, stage: Stage) -> str:
        """Sum up a finished evaluation in a few words."""
        if stage.kind != "evaluate":
            return ""
        success = self.store.json(stage, SCORES)["success"]
        played = [value for value in success if value is not None]
        return f"{100 * sum(played) / max(1, len(played)):.1f} % of {len(success)} tasks solved"


def _train_with_torchrun(
    config: TrainConfig,
    run: Path,
    options: Sequence[str],
    processes: int,
    on_step: Callable[[Mapping[str, float]], None],
) -> None:
    """Train in several processes of this machine, which stop as this one does. Raises UsageError if one fails."""
    with tempfile.TemporaryDirectory() as folder:
        recipe, log = Path(folder) / "recipe.yaml", Path(folder) / "log.txt"
        recipe.write_text(yaml.safe_dump(json.loads(json.dumps(plain(config)))), encoding="utf-8")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [*torchrun, "-m", "gentax", "train", str(recipe), "--out", str(run), *options]
        with open(log, "wb") as output:
            launcher = subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True, preexec_fn=_end_with_parent
            )
        shown = 0
        try:
            while launcher.poll() is None:
                time.sleep(REPORT_EVERY)
                with contextlib.suppress(OSError, ValueError, IndexError, KeyError):  # not there, or half written
                    row = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
                    if row["step"] > shown:
                        shown = row["step"]
                        on_step(row)
        finally:
            if launcher.poll() is None:
                launcher.send_signal(signal.SIGINT)  # each ends its step and writes its checkpoint
                try:
                    launcher.wait(STOP)
                finally:
                    launcher.kill()
        if launcher.returncode:
            lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
            said = [line for line in lines if line.startswith("gentax: ")] or lines[-1:] or ["nothing was said"]
            raise UsageError(
                f"torchrun ended with exit code {launcher.returncode}: {said[0].removeprefix('gentax: ')[:300]}"
            )


def _end_with_parent() -> None:
    """Have this process told to end when the one that started it ends. Linux alone can."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _throttled(store: Store, stage: Stage, on_progress: Progress) -> Progress:
    """Return what notes the progress of a stage, for this process and in the store, now and then."""
    noted = 0.0

    def note(fraction: float, detail: str) -> None:
        nonlocal noted
        on_progress(fraction, detail)
        if (now := time.monotonic()) - noted >= REPORT_EVERY:
            noted = now
            store.write_progress(stage, min(max(fraction, 0.0), 1.0), detail)

    return note


def _explain(fault: Exception, log: Path) -> str:
    """Return an error in one line. The traceback of one that nobody expected goes to a file."""
    text = " ".join(str(fault).split())[:600] or type(fault).__name__
    if isinstance(fault, OSError) and fault.errno == errno.ENOSPC:
        return f"the disk is full ({text})"
    if isinstance(fault, (UsageError, EnvironmentFault, NonFiniteLoss, PolicyFault, OSError)):
        return text
    with contextlib.suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(traceback.format_exception(fault)), encoding="utf-8")
    return f"{type(fault).__name__}: {text} (its traceback is in {log})"

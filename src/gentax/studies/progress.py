"""What a study shows while it runs, and its estimate of the time left.

The estimate starts from what stages cost on two CPU cores with the base model. What counts is how stages compare with
each other: a machine or a model of another speed shows in the first stages, and the rest is scaled by it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gentax.core.console import format_duration, one_line
from gentax.policies.load import SCRIPTED_BY_NAME
from gentax.studies.plan import Stage
from gentax.studies.run import StudyCallback

# Seconds, read off the demo's stages on two cores with bf16 and the model that ships with gentax.
EPISODE = {
    "sokoban": 0.020, "webshop": 0.035, "crafting": 0.010, "babyai": 0.065, "twx-cooking": 0.040,
    "twx-mapreader": 0.050, "alfworld": 0.04, "sciworld": 0.21,
}  # fmt: skip
OTHER_EPISODE = 0.05  # in a domain that is not in the table
SCRIPTED = 0.3  # the environment's share of that: what random play takes
GRADIENT_EPISODE = 0.01  # of policy gradient, in addition to playing the episode
SFT_UPDATE = 0.07  # an update of supervised fine-tuning, on a batch of `SFT_BATCH` pairs
REPLAY_UPDATE = 0.18  # what replay adds to an update
SFT_BATCH = 32
FIXED = {"evaluate": 0.3, "train": 2.0, "report": 10.0}  # of each stage, in addition
PRIOR = 20.0  # seconds of a kind of stage after which its own speed counts as much as that of all stages
REFRESH = 4  # times a second that a terminal is redrawn


def expected_seconds(stage: Stage) -> float:
    """Return about how many seconds a stage takes."""
    inputs = stage.inputs
    if stage.kind == "evaluate":
        share = SCRIPTED if inputs.get("policy") in SCRIPTED_BY_NAME else 1.0
        episode = share * EPISODE.get(inputs["domain"], OTHER_EPISODE)
        return FIXED[stage.kind] + inputs["tasks"] * inputs["samples"] * episode
    return FIXED[stage.kind] + (sum(_training_seconds(inputs["recipe"])) if stage.kind == "train" else 0.0)


def _training_seconds(config: Mapping[str, Any]) -> tuple[float, float]:
    """Return about how many seconds supervised fine-tuning and policy gradient take in a run."""
    sft, phases = config["sft"], config["curriculum"]["phases"]
    replay = REPLAY_UPDATE if config["forgetting"]["replay"] else 0.0
    updates = 0.0 if sft is None else sft["max_pairs"] * sft["num_train_epochs"] / SFT_BATCH
    steps = sum(phase["max_steps"] for phase in phases) if phases else config["max_steps"]
    episodes = config["tasks_per_step"] * config["num_generations"]
    step = episodes * (EPISODE.get(config["source"].split(":")[0], OTHER_EPISODE) + GRADIENT_EPISODE) + replay
    return updates * (SFT_UPDATE + replay), steps * step


class TimeEstimate:
    """Estimates the time left of a study while it runs.

    Args:
        stages: all of them.
        done: those that were finished before, with the seconds they took.
    """

    def __init__(self, stages: Sequence[Stage], done: Mapping[Stage, float]) -> None:
        self.expected = {stage: expected_seconds(stage) for stage in stages}
        self.done = set(done)
        self.current: Stage | None = None
        self.fraction = 0.0  # of the current stage
        self._started = 0.0
        self._spent: defaultdict[str, float] = defaultdict(float)  # kind of stage -> seconds
        self._budgeted: defaultdict[str, float] = defaultdict(
            float
        )  # kind of stage -> seconds expected for the work done
        for stage, seconds in done.items():
            self._count(stage, seconds)

    def begin(self, stage: Stage) -> None:
        self.current, self.fraction, self._started = stage, 0.0, time.monotonic()

    def advance(self, fraction: float) -> None:
        """Record how much of the current stage is done."""
        self.fraction = min(max(fraction, 0.0), 1.0)

    def train_log(self, metrics: Mapping[str, float], max_steps: int) -> None:
        """Record how far the current training is."""
        assert self.current is not None
        sft, policy_gradient = _training_seconds(self.current.inputs["recipe"])
        if "sft_step" in metrics:
            seconds = sft * metrics["sft_step"] / max(1.0, metrics["of"])
        else:
            seconds = sft + policy_gradient * metrics["step"] / max(1, max_steps)
        self.advance(seconds / max(1e-9, sft + policy_gradient))

    def end(self, stage: Stage) -> float:
        """Count a stage as done; return the seconds it took."""
        seconds = time.monotonic() - self._started
        self._count(stage, seconds)
        self.done.add(stage)
        self.current = None
        return seconds

    def left(self) -> float:
        """Return about how many seconds are left."""
        spent, budgeted, current = self._spent.copy(), self._budgeted.copy(), self.current
        if current is not None:
            spent[current.kind] += time.monotonic() - self._started
            budgeted[current.kind] += self.expected[current] * self.fraction
        overall = (sum(spent.values()) + PRIOR) / (sum(budgeted.values()) + PRIOR)
        left = 0.0
        for stage, seconds in self.expected.items():
            if stage not in self.done:
                slowdown = (spent[stage.kind] + PRIOR * overall) / (budgeted[stage.kind] + PRIOR)
                left += slowdown * seconds * (1 - (self.fraction if stage == current else 0.0))
        return left

    def fraction_done(self) -> float:
        """Return how much of the whole is done, from 0 to 1, by what stages were expected to take."""
        whole = sum(self.expected.values())
        done = sum(seconds for stage, seconds in self.expected.items() if stage in self.done)
        done += self.expected[self.current] * self.fraction if self.current is not None else 0.0
        return done / whole if whole else 1.0

    def _count(self, stage: Stage, seconds: float) -> None:
        self._spent[stage.kind] += seconds
        self._budgeted[stage.kind] += self.expected[stage]


class StudyProgress(StudyCallback):
    """Shows what is done and how long the whole takes.

    A terminal gets a bar and the current stage, two lines that go when the study is done. A pipe or a file gets one
    line for each stage as it ends.
    """

    def __init__(self, name: str, console: Console) -> None:
        self.name, self.console = one_line(name), console
        self.time = TimeEstimate([], {})
        self.number = self.total = 0  # of stages
        self.title, self.detail = "starting", ""  # of the current stage
        self._live = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(self, console=console, refresh_per_second=REFRESH, transient=True)

    def __enter__(self) -> StudyProgress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __rich__(self) -> RenderableType:
        """Return the two lines as they are now."""
        fraction = self.time.fraction_done() if self.total else 0.0
        line = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=1.0, completed=fraction, width=28)
        line.add_row(Text(self.name), bar, Text(f"{fraction:.0%}"), Text(f"about {clock(self.time.left())} left"))
        stage = f"[{self.number}/{self.total}] {self.title}" + (f": {self.detail}" if self.detail else "")
        return Group(line, Text(stage, no_wrap=True, overflow="ellipsis", style="dim"))

    def on_begin(self, stages: Sequence[Stage], done: Mapping[Stage, float]) -> None:
        self.time, self.total, self.number = TimeEstimate(stages, done), len(stages), len(done)
        if len(done) < len(stages):
            before = f", {len(done)} of them done before" if done else ""
            left = clock(self.time.left())
            self._print(f"study {self.name}: {len(stages)} stages{before}; about {left} on two cores")

    def on_stage_begin(self, stage: Stage) -> None:
        self.number += 1
        self.title, self.detail = one_line(stage.title), ""
        self.time.begin(stage)

    def on_train_log(self, metrics: Mapping[str, float], max_steps: int) -> None:
        self.time.train_log(metrics, max_steps)
        if "sft_step" in metrics:
            self.detail = f"imitation, update {metrics['sft_step']:.0f}/{metrics['of']:.0f}, loss {metrics['loss']:.3f}"
        else:
            self.detail = f"policy gradient, step {metrics['step']:.0f}/{max_steps}, success {metrics['success']:.0%}"

    def on_episode(self, number: int, total: int) -> None:
        self.time.advance(number / total)
        self.detail = f"{number}/{total} episodes"

    def on_stage_end(self, stage: Stage, outcome: str) -> None:
        took = clock(self.time.end(stage))
        left = f"; about {clock(self.time.left())} left" if self.number < self.total else ""
        result = f": {outcome}" if outcome else ""
        number = f"{self.number:>{len(str(self.total))}}"
        self._print(f"[{number}/{self.total}] {one_line(stage.title)}{result} ({took}{left})")

    def _print(self, text: str) -> None:
        if self._live is None:
            self.console.print(Text(text), soft_wrap=True)


def clock(seconds: float) -> str:
    """Write a duration as minutes and seconds, with hours where there are any.

    >>> clock(7.6), clock(754), clock(7500)
    ('0:08', '12:34', '2:05:00')
    """
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{format_duration(rest):0>5}" if hours else format_duration(rest)

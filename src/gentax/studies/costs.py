"""How long a study takes: what stages cost on two CPU cores with the base model, corrected as stages finish.

What counts is how stages compare with each other. A machine or a model of another speed shows in the first stages, and
the rest is scaled by it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from gentax.policies.load import SIMPLE
from gentax.studies.plan import Stage

# Seconds, read off the lines of the demo's stages on two cores with bf16 and the model that ships with gentax.
EPISODE = {
    "sokoban": 0.020, "webshop": 0.035, "crafting": 0.010, "babyai": 0.065, "twx-cooking": 0.040,
    "twx-mapreader": 0.050, "alfworld": 0.04, "sciworld": 0.21,
}  # fmt: skip
OTHER_EPISODE = 0.05  # in a domain that is not in the table
SCRIPTED = 0.3  # share of that which is the environment's: what random play takes
LEARNED_EPISODE = 0.01  # of policy gradient, on top of playing it
IMITATED = 0.07  # an update of imitation, which learns from `BATCH` pairs
REPLAYED = 0.18  # what replay adds to an update
BATCH = 32
FIXED = {"evaluate": 0.3, "train": 2.0, "measure": 8.0, "report": 2.0}  # of each stage, besides
TRUST = 20.0  # seconds of a kind of stage after which its own speed counts as much as that of all stages


def expected(stage: Stage) -> float:
    """Return about how many seconds a stage takes."""
    inputs = stage.inputs
    seconds = FIXED[stage.kind]
    if stage.kind == "evaluate":
        share = SCRIPTED if inputs.get("policy") in SIMPLE else 1.0
        return seconds + inputs["tasks"] * inputs["samples"] * share * EPISODE.get(inputs["domain"], OTHER_EPISODE)
    if stage.kind == "train":
        return seconds + sum(training_parts(inputs["recipe"]))
    return seconds


def training_parts(recipe: Mapping[str, Any]) -> tuple[float, float]:
    """Return about how many seconds imitation and policy gradient take in a run."""
    imitate, retain = recipe["imitate"], recipe["retain"]
    more = REPLAYED if retain["replay"] else 0.0
    imitation = 0.0
    if imitate is not None:
        imitation = imitate["pairs"] * imitate["epochs"] / BATCH * (IMITATED + more)
    phases = recipe["schedule"]["phases"]
    steps = sum(phase["steps"] for phase in phases) if phases else recipe["steps"]
    episodes = recipe["tasks_per_step"] * recipe["group"]
    step = episodes * (EPISODE.get(recipe["source"], OTHER_EPISODE) + LEARNED_EPISODE) + more
    return imitation, steps * step


class TimeLeft:
    """Estimates what is left of a study while it runs.

    Args:
        stages: all of them.
        done: those that were done before, with the seconds they took.
    """

    def __init__(self, stages: Sequence[Stage], done: Mapping[Stage, float]) -> None:
        self.expected = {stage: expected(stage) for stage in stages}
        self.done = set(done)
        self.now: Stage | None = None
        self.share_of_stage = 0.0
        self._began = 0.0
        self._spent: dict[str, float] = {}  # kind -> seconds
        self._paid: dict[str, float] = {}  # kind -> seconds expected for what was done in them
        for stage, seconds in done.items():
            self._count(stage, seconds)

    def begin(self, stage: Stage) -> None:
        self.now, self.share_of_stage, self._began = stage, 0.0, time.monotonic()

    def progress(self, share: float) -> None:
        """Say how much of the stage in progress is done."""
        self.share_of_stage = min(max(share, 0.0), 1.0)

    def train_row(self, row: Mapping[str, float], steps: int) -> None:
        """Say which row the training in progress has come to."""
        assert self.now is not None
        imitation, rest = training_parts(self.now.inputs["recipe"])
        if "imitate" in row:
            paid = imitation * row["imitate"] / max(1.0, row["of"])
        else:
            paid = imitation + rest * row["step"] / max(1, steps)
        self.progress(paid / max(1e-9, imitation + rest))

    def end(self, stage: Stage) -> float:
        """Count a stage as done; return the seconds it took."""
        seconds = time.monotonic() - self._began
        self._count(stage, seconds)
        self.done.add(stage)
        self.now = None
        return seconds

    def left(self) -> float:
        """Return about how many seconds are left."""
        spent, paid = dict(self._spent), dict(self._paid)
        now = self.now
        if now is not None:
            spent[now.kind] = spent.get(now.kind, 0.0) + time.monotonic() - self._began
            paid[now.kind] = paid.get(now.kind, 0.0) + self.expected[now] * self.share_of_stage
        overall = (sum(spent.values()) + TRUST) / (sum(paid.values()) + TRUST)
        left = 0.0
        for stage, seconds in self.expected.items():
            if stage not in self.done:
                factor = (spent.get(stage.kind, 0.0) + TRUST * overall) / (paid.get(stage.kind, 0.0) + TRUST)
                left += factor * seconds * (1 - (self.share_of_stage if stage == now else 0.0))
        return left

    def share(self) -> float:
        """Return how much of the whole is done, from 0 to 1, by what stages were expected to take."""
        whole = sum(self.expected.values())
        paid = sum(seconds for stage, seconds in self.expected.items() if stage in self.done)
        paid += self.expected[self.now] * self.share_of_stage if self.now is not None else 0.0
        return paid / whole if whole else 1.0

    def _count(self, stage: Stage, seconds: float) -> None:
        self._spent[stage.kind] = self._spent.get(stage.kind, 0.0) + seconds
        self._paid[stage.kind] = self._paid.get(stage.kind, 0.0) + self.expected[stage]

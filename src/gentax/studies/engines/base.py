"""The interface of engines, and the simplest: one stage after the other in this process."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from gentax.core import UsageError
from gentax.studies.plan import Stage
from gentax.studies.stages import StageResult, StageRunner


class Engine(Protocol):
    """What does stages."""

    slots: int
    """How many stages are done at once."""

    def submit(self, stage: Stage) -> None:
        """Begin a stage, one of `slots` at most that have not ended."""
        ...

    def wait(self, timeout: float) -> list[StageResult]:
        """Return the stages that ended, after `timeout` seconds at the latest."""
        ...

    def close(self, *, stop: bool = False) -> None:
        """End the workers. With `stop`, stages in progress are told to stop where they can be resumed."""
        ...


OnProgress = Callable[[Stage, float, str], None]  # with a stage, the fraction done and what is being done
MakeEngine = Callable[[StageRunner, OnProgress], Engine]


class SerialEngine:
    """One stage after the other, in this process."""

    slots = 1

    def __init__(self, runner: StageRunner, on_progress: OnProgress) -> None:
        self.runner, self.on_progress = runner, on_progress
        self._submitted: deque[Stage] = deque()

    def submit(self, stage: Stage) -> None:
        self._submitted.append(stage)

    def wait(self, timeout: float) -> list[StageResult]:
        stage = self._submitted.popleft()
        return [self.runner.run(stage, lambda fraction, detail: self.on_progress(stage, fraction, detail))]

    def close(self, *, stop: bool = False) -> None:
        self._submitted.clear()


def number_option(options: Mapping[str, str], key: str, default: float) -> float:
    """Return the option of an engine as a number. Raises UsageError where it is none, or is negative or endless."""
    try:
        value = float(options.get(key, default))
    except ValueError:
        value = math.nan
    if not (value >= 0 and math.isfinite(value)) or (key == "gpus" and value > 1 and value % 1):
        kind = "a number; of GPUs a whole one above 1" if key == "gpus" else "a number"
        raise UsageError(f"the option {key} of an engine must be {kind}, not {options.get(key, default)!r}")
    return value

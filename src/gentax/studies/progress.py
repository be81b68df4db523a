"""What a study shows while it runs: stages, cells, the time left, failures."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gentax.core.console import format_duration, one_line
from gentax.studies.costs import CostModel
from gentax.studies.plan import Stage
from gentax.studies.run import StudyCallback

REFRESH = 4  # times a second that a terminal is redrawn
SHOWN = 4  # stages in progress that a terminal shows


class TimeEstimate:
    """Estimates the time left of a study while it runs.

    Args:
        stages: all of them.
        done: those that were finished before.
        slots: how many stages are done at once.
        costs: what stages take.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        done: Iterable[Stage],
        slots: int = 1,
        costs: CostModel | None = None,
    ) -> None:
        self.costs, self.slots, self.stages = costs or CostModel(), slots, stages
        self.done = set(done)
        self._began: dict[Stage, float] = {}  # stages in progress
        self._fraction: dict[Stage, float] = {}

    def begin(self, stage: Stage) -> None:
        self._began[stage], self._fraction[stage] = time.monotonic(), 0.0

    def advance(self, stage: Stage, fraction: float) -> None:
        """Record how much of a stage in progress is done."""
        self._fraction[stage] = min(max(fraction, 0.0), 1.0)

    def end(self, stage: Stage, *, counts: bool = True) -> float:
        """Take a stage as done; return the seconds it took.

        Args:
            stage: the stage.
            counts: whether its speed says something about the others: it was done here.
        """
        seconds = time.monotonic() - self._began.pop(stage, time.monotonic())
        self._fraction.pop(stage, None)
        self.done.add(stage)
        if counts:
            self.costs.count(stage, seconds)
        return seconds

    def left(self) -> float:
        """Return about how many seconds are left: the work shared by all slots, or the longest chain of stages."""
        work = self._left_by_stage()
        after: dict[Stage, float] = {}  # of each training run, its longest evaluation
        for stage, seconds in work.items():
            for need in stage.needs if stage.kind == "evaluate" else ():
                after[need] = max(after.get(need, 0.0), seconds)
        report = sum(seconds for stage, seconds in work.items() if stage.kind == "report")
        longest = max((work.get(stage, 0.0) + more for stage, more in after.items()), default=0.0)
        return max((sum(work.values()) - report) / self.slots, longest) + report

    def fraction_done(self) -> float:
        """Return how much of the whole is done, from 0 to 1, by what stages are expected to take."""
        whole = sum(self.costs.unit.seconds(stage) for stage in self.stages)
        left = sum(
            self.costs.unit.seconds(stage) * (1 - self._fraction.get(stage, 0.0))
            for stage in self.stages
            if stage not in self.done
        )
        return 1 - left / whole if whole else 1.0

    def _left_by_stage(self) -> dict[Stage, float]:
        left = {}
        for stage in self.stages:
            if stage in self.done:
                continue
            expected, fraction = self.costs.seconds(stage), self._fraction.get(stage, 0.0)
            if fraction > 0.05:  # its own speed, the more of it is known
                own = (time.monotonic() - self._began[stage]) / fraction
                expected = math.exp(fraction * math.log(max(own, 1e-3)) + (1 - fraction) * math.log(expected))
            left[stage] = expected * (1 - fraction)
        return left


class StudyProgress(StudyCallback):
    """Shows what is done and how long the whole takes.

    A terminal gets a bar and the stages in progress, lines that go when the study is done. A pipe or a file gets one
    line for each stage as it ends.
    """

    def __init__(self, name: str, console: Console, costs: CostModel | None = None) -> None:
        self.name, self.console, self.costs = one_line(name), console, costs
        self.time = TimeEstimate([], ())
        self.total = self.num_done = self.num_failed = 0  # stages
        self.detail: dict[Stage, str] = {}  # of the stages in progress
        self.elsewhere: set[Stage] = set()  # stages that another run does
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
        """Return the lines as they are now."""
        fraction = self.time.fraction_done() if self.total else 0.0
        bar, line = ProgressBar(total=1.0, completed=fraction, width=28), Table.grid(padding=(0, 2))
        left = f"about {clock(self.time.left())} left" if self.total else "starting"
        line.add_row(Text(self.name), bar, Text(f"{fraction:.0%}"), left)
        lines = [f"{self._count(len(self.detail))} {one_line(s.title)}: {d}" for s, d in self.detail.items()][:SHOWN]
        if more := len(self.detail) - len(lines):
            lines.append(f"and {more} more")
        if self.elsewhere:
            lines.append(f"{len(self.elsewhere)} stages are being done by another run")
        if self.num_failed:
            lines.append(f"{self.num_failed} stages failed")
        return Group(line, *(Text(text, no_wrap=True, overflow="ellipsis", style="dim") for text in lines))

    def on_begin(self, stages: Sequence[Stage], done: Collection[Stage], slots: int) -> None:
        self.time = TimeEstimate(stages, done, slots, self.costs)
        self.total, self.num_done = len(stages), len(done)
        if len(done) < len(stages):
            before = f", {len(done)} of them done before" if done else ""
            workers = f" with {slots} workers" if slots > 1 else ""
            self._print(f"study {self.name}: {self.total} stages{before}; about {clock(self.time.left())}{workers}")

    def on_stage_begin(self, stage: Stage) -> None:
        self.detail[stage] = "starting"
        self.time.begin(stage)

    def on_progress(self, stage: Stage, fraction: float, detail: str) -> None:
        self.time.advance(stage, fraction)
        self.detail[stage] = one_line(detail)

    def on_stage_end(self, stage: Stage, outcome: str) -> None:
        self.detail.pop(stage, None)
        self.num_done += 1
        took = self.time.end(stage, counts=stage not in self.elsewhere)
        self.elsewhere.discard(stage)
        left = f"; about {clock(self.time.left())} left" if self.num_done < self.total else ""
        result = f": {one_line(outcome)}" if outcome else ""
        self._print(f"{self._count(0)} {one_line(stage.title)}{result} ({clock(took)}{left})")

    def on_stage_elsewhere(self, stage: Stage) -> None:
        self.detail.pop(stage, None)
        self.elsewhere.add(stage)
        self._print(f"{one_line(stage.title)} is being done by another run")

    def on_stage_failed(self, stage: Stage, why: str) -> None:
        self.detail.pop(stage, None)
        self.num_failed += 1
        self.console.print(Text(f"failed: {one_line(stage.title)}: {one_line(why)}", style="red"), soft_wrap=True)

    def on_damage(self, what: str) -> None:
        self.console.print(Text(f"damaged: {one_line(what)}", style="yellow"), soft_wrap=True)

    def _count(self, in_progress: int) -> str:
        """Return how many stages are done, with those in progress."""
        return f"[{min(self.num_done + in_progress, self.total):>{len(str(self.total))}}/{self.total}]"

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

"""What is shown while a study runs, in a terminal or line by line."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gentax.core.console import one_line
from gentax.studies.costs import CostModel, TimeEstimate, clock
from gentax.studies.plan import Stage
from gentax.studies.run import StudyCallback

REFRESH = 4  # times a second that a terminal is redrawn
SHOWN = 4  # stages in progress that a terminal shows


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

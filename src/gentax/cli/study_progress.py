"""What a study shows while it runs: in a terminal two lines that stay where they are, elsewhere a line a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gentax.core.console import minutes, one_line
from gentax.studies.costs import TimeLeft

if TYPE_CHECKING:
    from gentax.studies.plan import Stage

DRAWINGS = 4  # a second


class StudyProgress:
    """Listens to a study (see `gentax.studies.run.Listener`) and shows what is done, and how long the whole takes.

    A terminal gets a bar and the stage in progress, which go when the study is done. A pipe or a file gets one line
    for each stage as it ends.
    """

    def __init__(self, name: str, console: Console) -> None:
        self.name, self.console = one_line(name), console
        self.time: TimeLeft | None = None
        self.number, self.of = 0, 0
        self.doing, self.at = "", ""  # the stage in progress, and how far it is
        self._live = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(self, console=console, refresh_per_second=DRAWINGS, transient=True)

    def __enter__(self) -> StudyProgress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __rich__(self) -> RenderableType:
        """Return the two lines as they are now."""
        if self.time is None:
            return Text(f"{self.name}  starting", no_wrap=True, overflow="ellipsis")
        share = self.time.share()
        line = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=1.0, completed=share, width=28)
        line.add_row(Text(self.name), bar, Text(f"{share:.0%}"), Text(f"about {clock(self.time.left())} left"))
        stage = f"[{self.number}/{self.of}] {self.doing}" + (f": {self.at}" if self.at else "")
        return Group(line, Text(stage, no_wrap=True, overflow="ellipsis", style="dim"))

    def begin(self, stages: Sequence[Stage], done: Mapping[Stage, float]) -> None:
        self.time, self.of, self.number = TimeLeft(stages, done), len(stages), len(done)
        if self._live is None and len(done) < len(stages):
            before = f", {len(done)} of them done before" if done else ""
            left = clock(self.time.left())
            self._say(f"study {self.name}: {len(stages)} stages{before}; about {left} on two cores")

    def stage(self, stage: Stage) -> None:
        assert self.time is not None
        self.number += 1
        self.doing, self.at = one_line(stage.title), ""
        self.time.begin(stage)

    def train_row(self, row: dict[str, float], steps: int) -> None:
        assert self.time is not None
        self.time.train_row(row, steps)
        if "imitate" in row:
            self.at = f"imitation, update {row['imitate']:.0f}/{row['of']:.0f}, loss {row['loss']:.3f}"
        else:
            self.at = f"policy gradient, step {row['step']:.0f}/{steps}, success {row['success']:.0%}"

    def episode(self, number: int, of: int) -> None:
        assert self.time is not None
        self.time.progress(number / of)
        self.at = f"{number}/{of} episodes"

    def end(self, stage: Stage, outcome: str) -> None:
        assert self.time is not None
        seconds = self.time.end(stage)
        if self._live is None:
            said = f": {outcome}" if outcome else ""
            width = len(str(self.of))
            left = (
                f"{clock(seconds)}; about {clock(self.time.left())} left" if self.number < self.of else clock(seconds)
            )
            self._say(f"[{self.number:>{width}}/{self.of}] {one_line(stage.title)}{said} ({left})")

    def _say(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)


def clock(seconds: float) -> str:
    """Write a duration as minutes and seconds, with hours where there are any.

    >>> clock(7.6), clock(754), clock(7500)
    ('0:08', '12:34', '2:05:00')
    """
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{minutes(rest):0>5}" if hours else minutes(rest)

"""What commands print while they work and when they are done."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from gentax.core import Episode
    from gentax.measure.statistics import Estimate

console = Console(highlight=False, soft_wrap=True, emoji=False)


class Progress:
    """One line that is rewritten in a terminal, and a line now and then elsewhere."""

    def __init__(self, every: int = 10) -> None:
        self.live = sys.stdout.isatty()
        self.every = every

    def say(self, text: str, number: int, of: int) -> None:
        text = printable(text)
        if self.live:
            sys.stdout.write("\r\x1b[2K" + text[: console.width - 1])
            if number >= of:
                sys.stdout.write("\n")
            sys.stdout.flush()
        elif number == 1 or number >= of or number % self.every == 0:
            print(text, flush=True)

    def train(self, row: dict[str, float], steps: int) -> None:
        """Show a row of a training run that takes `steps` steps, or of the imitation before them."""
        number, of = (row["imitate"], row["of"]) if "imitate" in row else (row["step"], steps)
        self.say(training_line(row, steps), int(number), int(of))


def episodes_counted(of: int, what: str) -> Callable[[Episode], None]:
    """Return a callback that counts episodes as they end."""
    progress, done, won = Progress(every=max(1, of // 4)), 0, 0

    def count(episode: Episode) -> None:
        nonlocal done, won
        done, won = done + 1, won + episode.success
        progress.say(f"  {what}: {done}/{of} episodes, {won / done:.0%} solved", done, of)

    return count


def training_line(row: dict[str, float], steps: int) -> str:
    """Return a step of training as one line."""
    if "imitate" in row:
        return f"  imitation {row['imitate']:.0f}/{row['of']:.0f}  loss {row['loss']:.3f}"
    held = f"  held out {row['held_out']:.2f}" if "held_out" in row else ""
    return (
        f"  step {row['step']:.0f}/{steps}  success {row['success']:.2f}  return {row['return']:.2f}  "
        f"length {row['length']:.1f}  invalid {row['invalid']:.0%}  entropy {row.get('entropy', 0):.2f}  "
        f"kl {row.get('kl', 0):.3f}  {row['tokens_per_s']:.0f} tokens/s  {minutes(row['left_s'])} left{held}"
    )


def minutes(seconds: float) -> str:
    """Write a duration as minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def estimate(value: Estimate | None, digits: int = 1) -> str:
    """Write an estimate with its interval."""
    if value is None:
        return "undefined"
    return f"{value.value:.{digits}f}  ({value.low:.{digits}f} to {value.high:.{digits}f})"


def printable(text: str) -> str:
    """Return text without what could move the cursor or change the terminal: control characters become marks."""
    return "".join(c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "\ufffd" for c in text)


def shown(name: str) -> str:
    """Return a name on one line, without what could change the terminal."""
    return " ".join(printable(name).split())


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; the first column is text, the others numbers.

    Columns stay whole in a narrow terminal and in a file, where the lines are simply long.
    """
    lines = [[shown(str(cell)) for cell in line] for line in (columns, *rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    console.print(Text(shown(title), style="bold"))
    for number, line in enumerate(lines):
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        console.print(Text("  ".join(cells).rstrip(), style="" if number else "bold"))
    console.print()


def say(sentences: Iterable[str]) -> None:
    """Print sentences, of which parts may come from a model, a server or a file."""
    for sentence in sentences:
        console.print(printable(sentence), markup=False)

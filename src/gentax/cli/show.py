"""What commands print when they are done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from gentax.core.console import TextTable, end_line, printable
from gentax.core.console import one_line as shown

if TYPE_CHECKING:
    from gentax.metrics.statistics import Estimate, Undefined

__all__ = ["console", "estimate", "printable", "say", "show_table", "shown", "table"]


class _Console(Console):
    """A console that prints below a line of progress, not behind it."""

    def print(self, *objects: Any, **settings: Any) -> None:
        end_line()
        super().print(*objects, **settings)


console = _Console(highlight=False, soft_wrap=True, emoji=False)


def estimate(value: Estimate | Undefined | None, digits: int = 1) -> str:
    """Write an estimate with its interval."""
    return value.text(digits) if value else "undefined"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; the first column is text, the others numbers."""
    show_table(TextTable(title, columns, rows))


def show_table(made: TextTable) -> None:
    """Print a table, its title and the heads of its columns in bold."""
    for number, line in enumerate(made.lines()):
        console.print(Text(line, style="" if number > 1 else "bold"))
    console.print()


def say(sentences: str | Iterable[str]) -> None:
    """Print a sentence or several, of which parts may come from a model, a server or a file.

    A terminal gets them broken between words, below a line of progress; a file gets each as one line.
    """
    for sentence in [sentences] if isinstance(sentences, str) else sentences:
        console.print(printable(sentence), markup=False, soft_wrap=not console.is_terminal)

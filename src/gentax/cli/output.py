"""How commands print, and where their results go."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from gentax.core.console import TextTable, end_line
from gentax.core.console import one_line as one_line
from gentax.core.console import printable as printable
from gentax.core.errors import UsageError

if TYPE_CHECKING:
    from gentax.metrics.statistics import Estimate, Undefined


class _Console(Console):
    """A console that prints below a line of progress, not behind it."""

    def print(self, *objects: Any, **settings: Any) -> None:
        end_line()
        super().print(*objects, **settings)


console = _Console(highlight=False, soft_wrap=True, emoji=False)


def estimate_text(value: Estimate | Undefined | None, digits: int = 1) -> str:
    """Write an estimate with its interval."""
    return value.text(digits) if value else "undefined"


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; the first column is text, the others numbers."""
    print_text_table(TextTable(title, columns, rows))


def print_text_table(text_table: TextTable) -> None:
    """Print a table, its title and the heads of its columns in bold."""
    for number, line in enumerate(text_table.lines()):
        console.print(Text(line, style="" if number > 1 else "bold"))
    console.print()


def print_text(sentences: str | Iterable[str]) -> None:
    """Print a sentence or several, of which parts may come from a model, a server or a file.

    A terminal gets them broken between words, below a line of progress; a file gets each as one line.
    """
    for sentence in [sentences] if isinstance(sentences, str) else sentences:
        console.print(printable(sentence), markup=False, soft_wrap=not console.is_terminal)


def write_result(path: Path | None, value: Any) -> None:
    """Write a result as JSON where `--json` was given."""
    from gentax.core.files import write_json

    if path is not None:
        write_json(path, value)
        console.print(f"wrote {one_line(str(path))}", markup=False)


def check_output(path: Path | None, option: str = "--json") -> None:
    """Refuse an output path that cannot be written, before hours are spent on what would go there."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{path} is a folder; {option} takes a file")
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{option} {path}: nothing can be written there: {error.strerror}") from None
    if not os.access(path.absolute().parent, os.W_OK):
        raise UsageError(f"{option} {path}: nothing can be written there")

"""How commands print, and where their results go."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from gentax.core.console import end_line, one_line, visible
from gentax.core.errors import UsageError
from gentax.core.files import write_json
from gentax.core.results import TextTable, write_table
from gentax.core.results import check_table as check_table_name

if TYPE_CHECKING:
    from gentax.core.results import Tabular
    from gentax.metrics.statistics import Estimate, Undefined


class _Console(Console):
    """A console that prints below a line of progress, not behind it."""

    def print(self, *objects: Any, **settings: Any) -> None:
        end_line()
        super().print(*objects, **settings)


console = _Console(highlight=False, soft_wrap=True, emoji=False)


def estimate_text(value: Estimate | Undefined | None, digits: int = 1, missing: str = "undefined") -> str:
    """Write an estimate with its interval."""
    return value.text(digits) if value else missing


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
        console.print(visible(sentence), markup=False, soft_wrap=not console.is_terminal)


def write_result(path: Path | None, value: Any) -> None:
    """Write a result as JSON where `--json` was given."""
    if path is not None:
        save(path, lambda file: write_json(file, value))
        print_text(f"wrote {one_line(str(path))}")


def write_rows(path: Path | None, results: Iterable[Tabular]) -> None:
    """Write the rows of results as a table where `--table` was given."""
    if path is not None:
        rows = [row for result in results for row in result.rows()]
        save(path, lambda file: write_table(file, rows))
        print_text(f"wrote {one_line(str(path))}")


def save(path: Path, write: Callable[[Path], None]) -> None:
    """Write what a command has come to with `write`; where that fails, write it to the folder for temporary files.

    Raises:
        OSError: it could not be written to `path`; the message says where it is instead, or that it is lost.
    """
    try:
        write(path)
    except OSError as fault:
        why = f"{path} could not be written ({fault.strerror or fault})"
        try:
            kept = Path(tempfile.mkdtemp(prefix="gentax-")) / path.name
            write(kept)
        except OSError:
            raise OSError(f"{why}, and neither could a temporary file: the result is lost but for the above") from None
        raise OSError(f"{why}; it was written to {kept} instead") from None


NEEDED = 1 << 20  # bytes that must be free where a command will write


def check_output(param: typer.CallbackParam, path: Path | None) -> Path | None:
    """Refuse a file of an option that cannot be written. Raises UsageError."""
    if path is None:
        return None
    option = param.opts[0]
    if path.is_dir():
        raise UsageError(f"{path} is a folder; {option} takes a file")
    refusal = f"{option} {path}: nothing can be written there"
    target = Path(os.path.realpath(path))  # of a link, where it leads
    if target.exists() and not target.is_file():  # a device or a pipe
        if not os.access(target, os.W_OK):
            raise UsageError(refusal)
        return path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent) as file:
            file.write(bytes(NEEDED))
    except OSError as error:
        raise UsageError(f"{refusal}: {error.strerror}") from None
    return path


def check_table(param: typer.CallbackParam, path: Path | None) -> Path | None:
    """Refuse a table that cannot be written, likewise."""
    check_table_name(path)
    return check_output(param, path)

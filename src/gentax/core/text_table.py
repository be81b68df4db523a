"""Text for a terminal: tables of aligned columns, and names that cannot change the terminal they are printed on."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


def printable(text: str) -> str:
    """Return text without what could move the cursor or change the terminal: control characters become marks."""
    return "".join(c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "\ufffd" for c in text)


def one_line(text: str) -> str:
    """Return text on one line, without what could change the terminal."""
    return " ".join(printable(text).split())


def as_printed(self: object, printer: Any, _: bool) -> None:
    """Show an object in a notebook as `print` does: `_repr_pretty_ = as_printed` in its class.

    IPython would otherwise show every field of a result, whole episodes among them.
    """
    printer.text(str(self))


@dataclass(frozen=True)
class TextTable:
    """A table with a title; the first column is text, the others numbers.

    Columns stay whole in a narrow terminal and in a file, where the lines are simply long.
    """

    title: str
    columns: Sequence[str]
    rows: Iterable[Sequence[object]]

    def lines(self) -> list[str]:
        """Return the title, the heads of the columns and the rows, one line each."""
        cells = [[one_line(str(cell)) for cell in line] for line in (self.columns, *self.rows)]
        widths = [max(len(line[n]) for line in cells) for n in range(len(self.columns))]
        return [one_line(self.title)] + [
            "  ".join(
                [line[0].ljust(widths[0])]
                + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            ).rstrip()
            for line in cells
        ]

    _repr_pretty_ = as_printed

    def __str__(self) -> str:
        return "\n".join(self.lines())

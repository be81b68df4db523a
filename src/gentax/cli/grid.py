"""Tables of many numbers: columns stay whole in a narrow terminal and in a file, where the lines are simply long."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from gentax.cli.play import printable
from gentax.cli.show import console


def grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others numbers."""
    lines = [list(map(shown, line)) for line in (columns, *rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    console.print(Text(title, style="bold"))
    for number, line in enumerate(lines):
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        console.print(Text("  ".join(cells).rstrip(), style="" if number else "bold"))
    console.print()


def shown(name: str) -> str:
    """Return a name on one line, without what could change the terminal."""
    return " ".join(printable(name).split())

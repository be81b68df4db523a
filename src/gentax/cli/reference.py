"""`gentax reference`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gentax.cli import options as o
from gentax.cli.output import check_output, console, write_result

if TYPE_CHECKING:
    from gentax.metrics.reference.recompute import Table


def reference(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="The paper's arXiv number; both papers without it.")
    ] = None,
    json: o.Json = None,
) -> None:
    """Recompute every figure that the two papers on the tax derive from their printed cells, and say which agree.

    Ranges are what the rounding of the cells allows. Examples: `gentax reference`, `gentax reference 2601.18217`
    """
    from gentax.metrics.reference import STUDIES, published
    from gentax.metrics.reference.recompute import recompute, tables

    check_output(json)
    recomputed = [recompute(published(key)) for key in ([study] if study else STUDIES)]
    for one in recomputed:
        console.print(f"{one.study.citation}\n{one.study.note}\n", markup=False)
        for table in tables(one):
            _print(table)
    for one in recomputed:
        console.print(one.summary, markup=False)
    write_result(json, [one.to_json() for one in recomputed])


def _print(table: Table) -> None:
    """Print a table at its full width: a figure that is cut short would be another figure."""
    console.print(table.title, style="bold", markup=False)
    widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    for row in (table.columns, *table.rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.print("  ".join(cells).rstrip(), markup=False, style="dim" if row is table.columns else None)
    for note in table.notes:
        console.print(f"  {note}", markup=False)
    console.print()

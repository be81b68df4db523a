"""Writes the page about the two papers' tables: every printed figure beside what its cells come to.

    python docs/published_tables_page.py

The tables are those of `gentax reference`, so that the page cannot say what the command does not.
"""

from __future__ import annotations

from pathlib import Path

from gentax.metrics.reference import STUDIES, published
from gentax.metrics.reference.recompute import Recomputed, Table, recompute, tables

FILE = Path(__file__).parent / "results" / "published-tables.md"

HEAD = """# The papers' tables, recomputed

`gentax reference` takes the cells that two papers print, works out every figure that the papers derive from them, and
says which agree. This page is its output (`python docs/published_tables_page.py`).

**How a figure is judged.** A cell printed as 15.2 is anything from 15.15 to 15.25. For each metric every corner of the
box of its cells is tried, which gives the exact range of what rounding allows. A figure is *reproduced* when a number
that is printed like it lies in the range of the metric that the paper states; *reproduced under another metric* when
only other metrics of the registry agree; else *not reproduced*. Where a cell is missing, the metrics are tried on the
targets that have all of theirs. If none agrees, the figure is *not checkable*, unless no success from 0 to 100 % in the
missing cells gives it by the stated metric. Then it is *not reproduced*.
Which figure follows which metric is nowhere written down: it is found each time.

**How much a match is worth.** A wide range agrees easily, so the width stands beside it. Many metrics are tried, so
the others that agree are named, and the same metrics are tried on the figures of *other* lines, where they can only
agree by accident: "by accident" is how many of the column's figures that rate would give.

**Words.** a, p, i: success on a target of the arm, of the plain run, at the start. Tax, tax rate and ΔID are gentax's
own; their ranges here cover rounding alone, since neither paper prints a spread.

From Python: `gentax.metrics.reference.published()` has the cells as typed rows, `recompute` what is on this page.
"""


def page() -> str:
    """Return the page in Markdown."""
    found = [recompute(published(key)) for key in STUDIES]
    summaries = "\n".join(f"- {one.summary}" for one in found)
    return "\n".join([HEAD, f"{summaries}\n", *map(_study, found)])


def _study(found: Recomputed) -> str:
    parts = [f"## {found.study.citation}\n\n{found.study.note}\n", *map(_table, tables(found))]
    return "\n".join(parts)


def _table(table: Table) -> str:
    rows = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    notes = "".join(f"\n- {note}" for note in table.notes)
    return f"### {table.title}\n\n" + "\n".join(lines) + "\n" + (f"{notes}\n" if notes else "")


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
    print(f"wrote {FILE.name}")

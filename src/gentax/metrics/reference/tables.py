"""The recomputed numbers as tables of text, for the command line and for the page in the documentation."""

from __future__ import annotations

from typing import NamedTuple

from gentax.metrics.reference.candidates import Range
from gentax.metrics.reference.claims import Status
from gentax.metrics.reference.recompute import Column, Judgement, Recomputed
from gentax.metrics.verdict import number

NONE = "—"
SHORT = {status: status.value for status in Status} | {Status.OTHER: "under another metric"}


class Table(NamedTuple):
    """A table of text, and remarks below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def tables(found: Recomputed) -> list[Table]:
    """Return the tables of one paper: its figures column by column, then rows, changes and claims."""
    made = [table for column in found.columns for table in (_figures(column), _tried(column))]
    if found.rows:
        made.append(_rows(found))
    if found.study.changes:
        made.append(_changes(found))
    if found.claims:
        made.append(_claims(found))
    return made


def _figures(column: Column) -> Table:
    digits = max(_digits(j.figure.printed) for j in column.judgements)
    rows, notes = [], [column.finding]
    for judged in column.judgements:
        line = " ".join(part for part in judged.figure.where if part)
        stated = NONE if judged.figure.cells.missing else _range(judged.stated, digits)
        printed = number(judged.figure.printed, _digits(judged.figure.printed))
        rows.append((line, printed, stated, SHORT[judged.status], *_best(judged, digits)))
        if len(judged.matches) > 1:
            others = ", ".join(f"{m.metric.name} {_range(m.range, digits)}" for m in judged.matches[1:])
            notes.append(f"{line} also agrees with {others}.")
        if judged.note:
            notes.append(f"{line}: {judged.note}.")
    heads = ("line", "printed", "as stated", "state", "metric that agrees", "its value", "width")
    return Table(column.name, heads, tuple(rows), tuple(notes))


def _best(judged: Judgement, digits: int) -> tuple[str, str, str]:
    if not judged.matches:
        return NONE, NONE, NONE
    metric, found = judged.matches[0]
    return metric.name, _range(found, digits), number(found.width, digits)


def _digits(printed: float) -> int:
    return len(str(printed).partition(".")[2])


def _tried(column: Column) -> Table:
    rows = [
        (
            t.metric.name,
            "yes" if t.stated else "",
            f"{t.agrees} of {t.figures}",
            number(t.elsewhere / t.pairs * t.figures) if t.pairs else NONE,
            t.metric.formula,
        )
        for t in column.tried
    ]
    return Table(f"{column.name}: metrics tried", ("metric", "stated", "agrees", "by accident", "formula"), tuple(rows))


def _rows(found: Recomputed) -> Table:
    rows = [
        (m.row.name, number(m.row.delta_id), _range(m.tax, 3), _range(m.mean_drop, 1), _range(m.tax_rate, 3),
         ", ".join(m.row.missing) or NONE)
        for m in found.rows
    ]  # fmt: skip
    return Table("Rows under gentax's measures", ("row", "ΔID", "tax", "mean drop", "tax rate", "no cell"), tuple(rows))


def _changes(found: Recomputed) -> Table:
    rows = []
    for c in found.study.changes:
        change = c.after - c.before
        numbers = [number(x, 2) for x in (c.before, c.after, change)]
        rows.append(
            (f"{c.model} {c.trained} → {c.tested}", c.against, c.unit, *numbers, f"{number(100 * change / c.before)} %")
        )
    heads = ("trained → tested", "against", "unit", "before", "after", "change", "relative")
    return Table("Before and after", heads, tuple(rows))


def _claims(found: Recomputed) -> Table:
    rows = [
        (c.text, c.status.value, *((f"{c.holds} of {len(c.cases)}", str(c.needed)) if c.cases else (NONE, NONE)))
        for c in found.claims
    ]
    notes = [f"{c.text}: not in {'; '.join(c.against)}." for c in found.claims if c.against]
    notes += [f"{c.text}: needs {c.lacks}." for c in found.claims if c.lacks]
    notes += [f"{c.text}: {c.remark}." for c in found.claims if c.remark]
    return Table("Claims", ("claim", "state", "holds in", "needed"), tuple(rows), tuple(notes))


def _range(found: Range | None, digits: int) -> str:
    if found is None:
        return NONE
    return f"{number(found.value, digits)} ({number(found.low, digits)} to {number(found.high, digits)})"

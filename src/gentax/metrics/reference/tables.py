"""The recomputed numbers as tables of text, for the command line and for the page in the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gentax.metrics.reference.candidates import Range
from gentax.metrics.reference.claims import Status
from gentax.metrics.reference.recompute import Column, Recomputed
from gentax.metrics.verdict import number

NONE = "—"
SHORT = {status: status.value for status in Status} | {Status.OTHER: "under another metric"}


class Table(NamedTuple):
    """A table of text, and remarks below it."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: Sequence[str]


def tables(recomputed: Recomputed) -> list[Table]:
    """Return the tables of one paper: its figures column by column, then rows, changes and claims."""
    of_columns = [table for column in recomputed.columns for table in (_figures(column), _metrics(column))]
    others = [_rows(recomputed), _changes(recomputed), _claims(recomputed)]
    return of_columns + [table for table in others if table.rows]


def _figures(column: Column) -> Table:
    digits = max(_digits(judged.printed) for judged in column.figures)
    rows, notes = [], [column.finding]
    for judged in column.figures:
        line = " ".join(part for part in judged.where if part)
        stated = NONE if judged.missing else _range(judged.stated, digits)
        best = (NONE, NONE, NONE)
        if judged.matches:
            match, *others = judged.matches
            best = (match.metric, _range(match, digits), number(match.width, digits))
            if others:
                listed = ", ".join(f"{m.metric} {_range(m, digits)}" for m in others)
                notes.append(f"{line} also agrees with {listed}.")
        rows.append((line, number(judged.printed, _digits(judged.printed)), stated, SHORT[judged.status], *best))
        if judged.note:
            notes.append(f"{line}: {judged.note}.")
    heads = ("line", "printed", "as stated", "state", "metric that agrees", "its value", "width")
    return Table(column.name, heads, rows, notes)


def _digits(printed: float) -> int:
    return len(str(printed).partition(".")[2])


def _metrics(column: Column) -> Table:
    rows = []
    for m in column.metrics:
        by_accident = number(m.elsewhere / m.pairs * m.figures) if m.pairs else NONE
        rows.append((m.metric, "yes" if m.stated else "", f"{m.agrees} of {m.figures}", by_accident, m.formula))
    return Table(f"{column.name}: metrics tried", ("metric", "stated", "agrees", "by accident", "formula"), rows, [])


def _rows(recomputed: Recomputed) -> Table:
    rows = []
    for m in recomputed.rows:
        measures = (_range(m.tax, 3), _range(m.mean_drop, 1), _range(m.tax_rate, 3))
        rows.append((m.row.name, number(m.row.delta_id), *measures, ", ".join(m.row.missing) or NONE))
    return Table("Rows under gentax's measures", ("row", "ΔID", "tax", "mean drop", "tax rate", "no cell"), rows, [])


def _changes(recomputed: Recomputed) -> Table:
    rows = []
    for c in recomputed.study.changes:
        change = c.after - c.before
        numbers = [number(x, 2) for x in (c.before, c.after, change)]
        relative = f"{number(100 * change / c.before)} %"
        rows.append((f"{c.model} {c.trained} → {c.tested}", c.against, c.unit, *numbers, relative))
    heads = ("trained → tested", "against", "unit", "before", "after", "change", "relative")
    return Table("Before and after", heads, rows, [])


def _claims(recomputed: Recomputed) -> Table:
    claims = recomputed.claims
    rows = []
    for claim in claims:
        counts = (f"{claim.holds} of {len(claim.cases)}", str(claim.needed)) if claim.cases else (NONE, NONE)
        rows.append((claim.text, claim.status.value, *counts))
    notes = [f"{claim.text}: not in {'; '.join(claim.against)}." for claim in claims if claim.against]
    notes += [f"{claim.text}: needs {claim.lacks}." for claim in claims if claim.lacks]
    notes += [f"{claim.text}: {claim.remark}." for claim in claims if claim.remark]
    return Table("Claims", ("claim", "state", "holds in", "needed"), rows, notes)


def _range(computed: Range | None, digits: int) -> str:
    if computed is None:
        return NONE
    return f"{number(computed.value, digits)} ({number(computed.low, digits)} to {number(computed.high, digits)})"

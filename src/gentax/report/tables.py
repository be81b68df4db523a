"""The tables of a report as CSV: one value a cell, limits of intervals in columns of their own.

Read by people and by spreadsheets, which run what looks like a formula: text that begins like one is quoted.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from markupsafe import Markup

from gentax.metrics.statistics import Estimate, Undefined
from gentax.metrics.verdict import headline
from gentax.report.headline import word
from gentax.report.model import Report
from gentax.report.text import visible

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet read text as a formula (OWASP, CSV injection)
TAXES = ("tax", "tax_untouched", "tax_touched", "tax_above_chance")
Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """Rows under named columns."""

    name: str  # of its file, without the suffix
    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]

    def csv(self) -> str:
        """Return the table as CSV, with a line of column names."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_written(cell) for cell in row] for row in self.rows)
        return out.getvalue()

    def link(self) -> Markup:
        """Return an address that holds the whole table, for a link in a page that loads nothing."""
        return Markup("data:text/csv;charset=utf-8,") + Markup(quote(self.csv(), safe=""))


def tables(report: Report) -> dict[str, Table]:
    """Return the tables that a report has something for, by their names."""
    made = [_taxes(report), _matrix(report), _arms(report), _domains(report)]
    return {table.name: table for table in made if table.rows}


def _taxes(report: Report) -> Table:
    """One line an arm: gain, tax, price."""
    columns = ("source", "arm", "seeds", "tasks_targets", "tasks_source")
    columns += (*(c for name in ("gain_points", *TAXES, "tax_rate") for c in _of(name)), "verdict")
    rows = []
    for result in report.results:
        tax = result.tax
        head = (tax.source, result.arm, tax.seeds, sum(tax.tasks[t] for t in tax.targets), tax.tasks.get(tax.source))
        numbers = [_three(e) for e in (tax.delta_id, *(getattr(tax, name) for name in TAXES), tax.tax_rate)]
        rows.append((*head, *(x for three in numbers for x in three), word(headline(tax), tax.seeds)))
    return Table("taxes", columns, rows)


def _matrix(report: Report) -> Table:
    """One line an arm and domain: success before and after, and the change."""
    columns = ("source", "arm", "domain", "role", "tasks", "random_percent")
    measures = ("before_percent", "after_percent", "drop_points", "before_above_chance", "after_above_chance")
    columns += (*(c for name in measures for c in _of(name)), "p_corrected")
    rows = []
    for result in report.results:
        tax = result.tax
        for name in tax.init:
            role = "source" if name == tax.source else "touched target" if name in tax.touched else "target"
            luck = tax.above_chance.get(name)
            above = (None, None) if luck is None else (luck.init, luck.after)
            numbers = [_three(e) for e in (tax.init[name], tax.after[name], tax.lost(name), *above)]
            rows.append(
                (
                    tax.source, result.arm, name, role, tax.tasks[name], None if luck is None else luck.random.value,
                    *(x for three in numbers for x in three), tax.drop_p.get(name),
                )
            )  # fmt: skip
    return Table("matrix", columns, rows)


def _arms(report: Report) -> Table:
    """One line an arm beside the one it is compared with."""
    measures = {"targets": "targets_points", "source": "source_points", "ood_change": "ood_change",
                "tax_removed": "tax_removed", "iqm": "iqm_percent", "better": "chance_to_beat_it"}  # fmt: skip
    columns = ("source", "arm", "beside", "p_corrected", *(c for name in measures.values() for c in _of(name)))
    rows = []
    for source, arms in report.compared.arms.items():
        for name, arm in arms.items():
            numbers = [_three(getattr(arm, measure)) for measure in measures]
            beside = report.compared.baselines.get(name, "plain")
            rows.append((source, name, beside, arm.targets_p, *(x for three in numbers for x in three)))
    return Table("arms", columns, rows)


def _domains(report: Report) -> Table:
    """One line a domain: where it lies under the policy before training."""
    measures = {"observation_characters": "observation_characters", "planning": "planning_steps",
                "success": "success_percent", "length_given_success": "steps_when_it_succeeds"}  # fmt: skip
    columns = ("domain", "episodes", "horizon", *(c for name in measures.values() for c in _of(name)))
    rows = []
    for axes in report.axes:
        numbers = [_three(getattr(axes, measure)) for measure in measures]
        rows.append((axes.domain, axes.episodes, axes.horizon, *(x for three in numbers for x in three)))
    return Table("domains", columns, rows)


def _of(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"


def _three(estimate: Estimate | Undefined | None) -> tuple[Cell, Cell, Cell]:
    if not isinstance(estimate, Estimate):
        return None, None, None
    return estimate.value, estimate.low, estimate.high


def _written(cell: Cell) -> str:
    if cell is None:
        return ""
    if not isinstance(cell, str):
        return f"{cell:.6g}" if isinstance(cell, float) else str(cell)
    text = visible(cell)
    return f"'{text}" if text.startswith(FORMULA) else text

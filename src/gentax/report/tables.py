"""The tables of a report as CSV: one value per cell, the limits of intervals in columns of their own.

They are read by people and by spreadsheets, which run text that looks like a formula: such text is quoted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gentax.core.results import csv_text, quote_formula
from gentax.metrics.statistics import Estimate, Undefined
from gentax.metrics.verdict import headline
from gentax.report.model import Report
from gentax.report.text import verdict_text, visible

TAXES = ("tax", "tax_untouched", "tax_touched", "tax_above_chance", "tax_rate")
Cell = str | int | float | None


@dataclass(frozen=True)
class CsvTable:
    """Rows under named columns."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]

    def csv(self) -> str:
        """Return the table as CSV, with a line of column names."""
        return csv_text(self.columns, ([_cell_text(cell) for cell in row] for row in self.rows))


def tables(report: Report) -> dict[str, CsvTable]:
    """Return the tables that the report has rows for, by name."""
    made = {"taxes": _taxes(report), "matrix": _matrix(report), "arms": _arms(report), "domains": _domains(report)}
    made["claims"] = _claims(report)
    return {name: table for name, table in made.items() if table.rows}


def _claims(report: Report) -> CsvTable:
    """One row per claim: its estimate in the unit named, what it is compared with, and the outcome."""
    columns = ("claim", "source", "outcome", *_with_limits("estimate"), "unit", "limit", "p", "p_corrected")
    rows = []
    for one in report.claims:
        unit, needed = one.estimate.unit if one.estimate else None, one.needed
        more = (None, None) if needed is None else (needed.seeds, needed.tasks)
        head = (one.claim.text, one.claim.source, one.outcome.value, *_numbers(one.estimate), unit, one.limit)
        rows.append((*head, one.p, one.corrected_p, *more))
    return CsvTable((*columns, "seeds_needed", "tasks_needed"), rows)


def _taxes(report: Report) -> CsvTable:
    """One row per arm: gain, tax, tax rate."""
    columns = ("source", "arm", "seeds", "tasks_targets", "tasks_source", *_with_limits("gain_points", *TAXES))
    rows = []
    for result in report.results:
        tax = result.tax
        head = (tax.source, result.arm, tax.seeds, sum(tax.tasks[t] for t in tax.targets), tax.tasks.get(tax.source))
        numbers = _numbers(tax.delta_id, *(getattr(tax, name) for name in TAXES))
        rows.append((*head, *numbers, verdict_text(headline(tax), tax.seeds)))
    return CsvTable((*columns, "verdict"), rows)


def _matrix(report: Report) -> CsvTable:
    """One row per arm and domain: success before and after, and the change."""
    measures = ("before_percent", "after_percent", "drop_points", "before_above_chance", "after_above_chance")
    columns = ("source", "arm", "domain", "role", "tasks", "random_percent", *_with_limits(*measures), "p_corrected")
    rows = []
    for result in report.results:
        tax = result.tax
        for name in tax.init:
            role = "source" if name == tax.source else "touched target" if name in tax.touched else "target"
            chance = tax.above_chance.get(name)
            above = (None, None) if chance is None else (chance.init, chance.after)
            random = None if chance is None else chance.random.value
            numbers = _numbers(tax.init[name], tax.after[name], tax.lost(name), *above)
            rows.append((tax.source, result.arm, name, role, tax.tasks[name], random, *numbers, tax.drop_p.get(name)))
    return CsvTable(columns, rows)


def _arms(report: Report) -> CsvTable:
    """One row per arm, compared with its baseline."""
    measures = {"targets": "targets_points", "source": "source_points", "ood_change": "ood_change",
                "tax_removed": "tax_removed", "iqm": "iqm_percent", "better": "probability_of_improvement"}  # fmt: skip
    rows = [
        (source, name, report.comparison.baselines.get(name, "plain"), arm.targets_p,
         *_numbers(*(getattr(arm, measure) for measure in measures)))
        for source, arms in report.comparison.arms.items()
        for name, arm in arms.items()
    ]  # fmt: skip
    return CsvTable(("source", "arm", "baseline", "p_corrected", *_with_limits(*measures.values())), rows)


def _domains(report: Report) -> CsvTable:
    """One row per domain: the axes under the policy before training."""
    measures = {"observation_characters": "observation_characters", "planning": "planning_steps",
                "success": "success_percent", "length_given_success": "steps_given_success"}  # fmt: skip
    rows = [
        (axes.domain, axes.episodes, axes.horizon, *_numbers(*(getattr(axes, measure) for measure in measures)))
        for axes in report.axes
    ]
    return CsvTable(("domain", "episodes", "horizon", *_with_limits(*measures.values())), rows)


def _with_limits(*names: str) -> Iterable[str]:
    return (name + end for name in names for end in ("", "_low", "_high"))


def _numbers(*estimates: Estimate | Undefined | None) -> Iterable[Cell]:
    """Return value, low and high of each estimate; empty cells for one that is not known."""
    for e in estimates:
        yield from (e.value, e.low, e.high) if isinstance(e, Estimate) else (None, None, None)


def _cell_text(cell: Cell) -> str:
    if cell is None:
        return ""
    if not isinstance(cell, str):
        return f"{cell:.6g}" if isinstance(cell, float) else str(cell)
    return quote_formula(visible(cell))

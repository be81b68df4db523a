"""The plots and tables of a report: each is in the page, and a file beside it (SVG and PDF, or CSV).

In a table the limits of an interval have columns of their own. Tables are read by people and by spreadsheets, which run
text that looks like a formula: such text is quoted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from gentax.core.console import visible
from gentax.core.results import csv_text, quote_formula
from gentax.metrics.statistics import Estimate, Undefined
from gentax.metrics.statistics.power import FREE_WITHIN
from gentax.metrics.verdict import headline
from gentax.report import LearningCurve, Report, figures
from gentax.report.figures import CurvePanel, CurveSeries, DomainPoint
from gentax.report.style import inline_svg
from gentax.report.text import row_name, summary, verdict_text

METRICS = (  # key, title, whether it is a fraction
    ("success", "success, train and validation tasks", True),
    ("return", "return", False),
    ("length", "episode length, steps", False),
    ("invalid", "invalid actions", True),
    ("entropy", "entropy, nats per token", False),
    ("kl", "KL to the start, nats per token", False),
)
VALIDATION = ("validation_success", "test_success")  # keys of success on tasks that are not trained on
PART = "validation_success/"  # before the name of a domain: of a run on several, what it keeps of each


class TitledFigure(NamedTuple):
    """A figure and what it shows."""

    title: str
    figure: Figure

    @property
    def svg(self) -> Markup:
        return inline_svg(self.figure, self.title)


class LearningPlots(NamedTuple):
    """The curves of all runs on one source."""

    source: str
    arms: tuple[str, ...]
    panels: tuple[TitledFigure, ...]
    whole: TitledFigure  # all panels in one figure, for a file


def plots(report: Report) -> dict[str, TitledFigure]:
    """Return the plots of a report, by the name of their files."""
    results, made = report.results, dict[str, TitledFigure]()
    lines = summary(results)
    points = [(line.name, line.gain, line.tax) for line in lines if line.gain and line.tax]
    if len(points) > 1:
        title = "Gain on the source against tax on the targets"
        made["gain-and-tax"] = TitledFigure(title, figures.tradeoff_plot(points, 100 * FREE_WITHIN))
    if results:
        made["matrix"] = TitledFigure("Success on every domain", figures.success_matrix(report))
    if len(results) == 1:
        drops = results[0].tax.drop
        title = "points lost (right) or gained (left)"
        rows = [(target, drops[target]) for target in report.columns() if target in drops]
        made["tax"] = TitledFigure(title, figures.forest_plot(rows, title, 1.0))
    elif results:
        title = "tax on all targets, % of the success there that was lost"
        taxes = [(row_name(result, results), result.tax.tax) for result in results]
        made["tax"] = TitledFigure(title, figures.forest_plot(taxes, title, 100.0, 100 * FREE_WITHIN))
    arms = report.comparison.arms
    compared = [
        (f"{source}, {name}" if len(arms) > 1 else name, arm.targets)
        for source, of in arms.items()
        for name, arm in of.items()
    ]
    if compared:
        title = "points on the targets that an arm has more (right) or less (left) than its baseline"
        made["arms"] = TitledFigure(title, figures.forest_plot(compared, title, 1.0, gain=True))
    if report.forecasts:
        title = "tax, %: forecast and measured"
        made["forecasts"] = TitledFigure(
            title, figures.forecast_plot([(f.name, f.forecast, f.measured) for f in report.forecasts])
        )
    if len(report.axes) > 1:
        x, y = "state richness, characters of the observation", "planning complexity, steps"
        domains = [DomainPoint(a.domain, a.observation_characters, a.planning) for a in report.axes]
        made["domains"] = TitledFigure(f"{y} against {x}", figures.axes_plot(domains, x, y, (figures.WIDTH, 3.3)))
    return made


def learning_plots(curves: Sequence[LearningCurve]) -> list[LearningPlots]:
    """Draw each metric that any run on a source has: a line for each arm, the mean over its seeds."""
    found = []
    for source in dict.fromkeys(curve.source for curve in curves):
        runs = [curve for curve in curves if curve.source == source]
        keys = dict.fromkeys(key for run in runs for row in run.rows for key in row if key.startswith(PART))
        parts = [(key, f"validation success on {key.removeprefix(PART)}", True) for key in keys]
        arms = tuple(dict.fromkeys(run.arm for run in runs if run.rows))  # a run of SFT alone has no rows
        drawn: list[CurvePanel] = []
        for key, title, fraction in (*METRICS, *parts):
            series = []
            for style, arm in enumerate(arms):
                for k in (key, *(VALIDATION if key == "success" else ())):
                    seeds = [_finite(run.rows, k) for run in runs if run.arm == arm]
                    if seeds := [one for one in seeds if one[0]]:
                        series.append(CurveSeries(seeds, style, validation=k.startswith(VALIDATION)))
            if series:
                drawn.append(CurvePanel(title, series, fraction, key == "success" or key in keys))
        if drawn:
            panels = tuple(TitledFigure(f"{source}: {one.title}", figures.learning_curves([one])) for one in drawn)
            whole = TitledFigure(f"Learning on {source}", figures.learning_curves(drawn, titles=True))
            found.append(LearningPlots(source, arms, panels, whole))
    return found


def _finite(rows: Iterable[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Return the steps and values of the rows with a finite `key`; a row without `step` counts from 1."""
    pairs = [(float(row.get("step", n)), row.get(key)) for n, row in enumerate(rows, 1)]
    finite = [(step, float(v)) for step, v in pairs if isinstance(v, (int, float)) and np.isfinite(v)]
    return [step for step, _ in finite], [value for _, value in finite]


TAXES = ("tax", "tax_untouched", "tax_touched", "tax_above_chance", "tax_rate")
Row = dict[str, Any]  # a table's cells by the names of its columns


def tables(report: Report) -> dict[str, str]:
    """Return the tables that the report has rows for as CSV, by name."""
    made = {"taxes": _taxes, "matrix": _matrix, "arms": _arms, "domains": _domains, "claims": _claims}
    return {name: _csv(rows) for name, rows_of in made.items() if (rows := rows_of(report))}


def _taxes(report: Report) -> list[Row]:
    """One row per arm: gain, tax, tax rate."""
    return [
        {
            "source": (tax := result.tax).source,
            "arm": result.arm,
            "seeds": tax.seeds,
            "tasks_targets": sum(tax.tasks[target] for target in tax.targets),
            "tasks_source": tax.tasks.get(tax.source),
            **_limits(gain_points=tax.delta_id, **{name: getattr(tax, name) for name in TAXES}),
            "verdict": verdict_text(headline(tax), tax.seeds),
        }
        for result in report.results
    ]


def _matrix(report: Report) -> list[Row]:
    """One row per arm and domain: success before and after, and the change."""
    rows = []
    for result in report.results:
        tax = result.tax
        for name in tax.init:
            chance = tax.above_chance.get(name)
            role = "source" if name == tax.source else "touched target" if name in tax.touched else "target"
            row: Row = {"source": tax.source, "arm": result.arm, "domain": name, "role": role, "tasks": tax.tasks[name]}
            row["random_percent"] = chance and chance.random.value
            row |= _limits(
                before_percent=tax.init[name],
                after_percent=tax.after[name],
                drop_points=tax.lost(name),
                before_above_chance=chance and chance.init,
                after_above_chance=chance and chance.after,
            )
            rows.append(row | {"p_corrected": tax.drop_p.get(name)})
    return rows


def _arms(report: Report) -> list[Row]:
    """One row per arm, compared with its baseline."""
    return [
        {
            "source": source,
            "arm": name,
            "baseline": report.comparison.baselines.get(name, "plain"),
            "p_corrected": arm.targets_p,
            **_limits(
                targets_points=arm.targets,
                source_points=arm.source,
                ood_change=arm.ood_change,
                tax_removed=arm.tax_removed,
                iqm_percent=arm.iqm,
                probability_of_improvement=arm.better,
            ),
        }
        for source, arms in report.comparison.arms.items()
        for name, arm in arms.items()
    ]


def _domains(report: Report) -> list[Row]:
    """One row per domain: the axes under the policy before training."""
    return [
        {
            "domain": axes.domain,
            "episodes": axes.episodes,
            "horizon": axes.horizon,
            **_limits(
                observation_characters=axes.observation_characters,
                planning_steps=axes.planning,
                success_percent=axes.success,
                steps_given_success=axes.length_given_success,
            ),
        }
        for axes in report.axes
    ]


def _claims(report: Report) -> list[Row]:
    """One row per claim: its estimate in the unit named, what it is compared with, and the outcome."""
    return [
        {
            "claim": one.claim.text,
            "source": one.claim.source,
            "outcome": one.outcome.value,
            **_limits(estimate=one.estimate),
            "unit": one.estimate.unit if one.estimate else None,
            "limit": one.limit,
            "p": one.p,
            "p_corrected": one.corrected_p,
            "seeds_needed": one.needed and one.needed.seeds,
            "tasks_needed": one.needed and one.needed.tasks,
        }
        for one in report.claims
    ]


def _limits(**estimates: Estimate | Undefined | None) -> Row:
    """Return three cells for each estimate: its value and its limits; empty for one that is not known."""
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {
        name + end: getattr(estimate, part) if estimate else None
        for name, estimate in estimates.items()
        for end, part in ends.items()
    }


def _csv(rows: Sequence[Row]) -> str:
    return csv_text(list(rows[0]), (map(_cell_text, row.values()) for row in rows))


def _cell_text(cell: str | float | None) -> str:
    if isinstance(cell, str):
        return quote_formula(visible(cell))
    return "" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else str(cell)

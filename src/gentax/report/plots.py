"""Which plots a report has: each is in the page, and a file beside it as SVG and PDF."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from gentax.metrics.statistics.power import FREE_WITHIN
from gentax.report import figures
from gentax.report.figures import Metric, Point, Series
from gentax.report.model import Curve, Report
from gentax.report.style import inline_svg
from gentax.report.text import row_name, summary

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


class Plot(NamedTuple):
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
    panels: tuple[Plot, ...]
    whole: Plot  # all panels in one figure, for a file


def plots(report: Report) -> dict[str, Plot]:
    """Return the plots of a report, by the name of their files."""
    results, made = report.results, dict[str, Plot]()
    lines = summary(results)
    points = [(line.name, line.gain, line.tax) for line in lines if line.gain and line.tax]
    if len(points) > 1:
        title = "Gain on the source against tax on the targets"
        made["gain-and-tax"] = Plot(title, figures.tradeoff_plot(points, 100 * FREE_WITHIN))
    if results:
        made["matrix"] = Plot("Success on every domain", figures.success_matrix(report))
    if len(results) == 1:
        drops = results[0].tax.drop
        title = "points lost (right) or gained (left)"
        rows = [(target, drops[target]) for target in report.columns() if target in drops]
        made["tax"] = Plot(title, figures.forest_plot(rows, title, 1.0))
    elif results:
        title = "tax on all targets, % of the success there that was lost"
        taxes = [(row_name(result, results), result.tax.tax) for result in results]
        made["tax"] = Plot(title, figures.forest_plot(taxes, title, 100.0, 100 * FREE_WITHIN))
    arms = report.comparison.arms
    compared = [
        (f"{source}, {name}" if len(arms) > 1 else name, arm.targets)
        for source, of in arms.items()
        for name, arm in of.items()
    ]
    if compared:
        title = "points on the targets that an arm has more (right) or less (left) than its baseline"
        made["arms"] = Plot(title, figures.forest_plot(compared, title, 1.0, gain=True))
    if report.forecasts:
        title = "tax, %: forecast and measured"
        made["forecasts"] = Plot(
            title, figures.forecast_plot([(f.name, f.forecast, f.measured) for f in report.forecasts])
        )
    if len(report.axes) > 1:
        x, y = "state richness, characters of the observation", "planning complexity, steps"
        domains = [Point(a.domain, a.observation_characters, a.planning) for a in report.axes]
        made["domains"] = Plot(f"{y} against {x}", figures.axes_plot(domains, x, y, (figures.WIDTH, 3.3)))
    return made


def learning_plots(curves: Sequence[Curve]) -> list[LearningPlots]:
    """Draw each metric that any run on a source has: a line for each arm, the mean over its seeds."""
    found = []
    for source in dict.fromkeys(curve.source for curve in curves):
        runs = [curve for curve in curves if curve.source == source]
        keys = dict.fromkeys(key for run in runs for row in run.rows for key in row if key.startswith(PART))
        parts = [(key, f"validation success on {key.removeprefix(PART)}", True) for key in keys]
        arms = tuple(dict.fromkeys(run.arm for run in runs if run.rows))  # a run of SFT alone has no rows
        drawn: list[Metric] = []
        for key, title, fraction in (*METRICS, *parts):
            series = []
            for style, arm in enumerate(arms):
                for k in (key, *(VALIDATION if key == "success" else ())):
                    seeds = [_finite(run.rows, k) for run in runs if run.arm == arm]
                    if seeds := [one for one in seeds if one[0]]:
                        series.append(Series(seeds, style, validation=k.startswith(VALIDATION)))
            if series:
                drawn.append(Metric(title, series, fraction, key == "success" or key in keys))
        if drawn:
            panels = tuple(Plot(f"{source}: {one.title}", figures.learning_curves([one])) for one in drawn)
            whole = Plot(f"Learning on {source}", figures.learning_curves(drawn, titles=True))
            found.append(LearningPlots(source, arms, panels, whole))
    return found


def _finite(rows: Iterable[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Return the steps and values of the rows with a finite `key`; a row without `step` counts from 1."""
    pairs = [(float(row.get("step", n)), row.get(key)) for n, row in enumerate(rows, 1)]
    finite = [(step, float(v)) for step, v in pairs if isinstance(v, (int, float)) and np.isfinite(v)]
    return [step for step, _ in finite], [value for _, value in finite]

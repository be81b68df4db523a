"""The page: one HTML file that needs nothing else. It makes no request, and nothing in it is trusted.

Everything that goes into the template is escaped by Jinja2 and, before that, has its invisible characters written out
(`finalize`); a Content-Security-Policy in the page forbids requests and every script but the one that filters episodes
(known by its hash), should anything slip through.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gentax.core.files import whole_file
from gentax.metrics.statistics import Estimate, Undefined
from gentax.metrics.tax import TaxReport
from gentax.metrics.verdict import FREE_WITHIN, caveats, number, sentences, signed
from gentax.report import figures, palette
from gentax.report.headline import Headline, headlines, notes, row_name
from gentax.report.model import Curve, Report, Result, base_success, random_success
from gentax.report.tables import tables
from gentax.report.text import dotted, duration, one_line, tied, visible

METRICS = (  # key, title, percent
    ("success", "success, seen and unseen tasks", True),
    ("return", "return", False),
    ("length", "episode length, steps", False),
    ("invalid", "invalid actions", True),
    ("entropy", "entropy, nats per token", False),
    ("kl", "KL to the start, nats per token", False),
)
UNSEEN_TASKS = ("validation_success", "test_success")  # keys of success on tasks that are not trained on


def write(report: Report, path: str | Path) -> None:
    """Write `report` as one HTML file to `path`, whole or not at all."""
    text = render(report)
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def render(report: Report) -> str:
    """Return `report` as an HTML document. The same report gives the same text."""
    heads, script = headlines(report.results), _script()
    said, details = list(report.answer), []
    if not said and len(report.results) == 1:
        told, last = sentences(report.results[0].tax), len(caveats(report.results[0].tax))
        said, details = told[:2], told[2 : len(told) - last]
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            report=report,
            answer=said,
            details=details,
            heads=heads,
            names=[head.name for head in heads],
            notes=[] if report.answer else notes(report.results),
            picture=_picture(heads),
            tables=tables(report),
            script=Markup(script),
            script_hash=b64encode(sha256(script.encode()).digest()).decode(),
            domains=report.columns(),
            chance=random_success(report.results),
            init=base_success(report.results),
            left_out=sum(n for result in report.results for n in result.tax.left_out.values()),
            colours=Markup(palette.variables(palette.LIGHT)),
            dark=Markup(palette.variables(palette.DARK)),
            overview=_overview(report.results, report.columns()),
            runs=_runs(report.curves),
            axes_figure=_axes_figure(report),
            settings=dotted(report.settings),
            free_within=FREE_WITHIN,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gentax.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(str(value)),
    )
    environment.filters |= {
        "number": number, "signed": signed, "shade": palette.shade, "duration": duration, "one_line": one_line,
        "tied": tied, "target_tasks": _target_tasks,
    }  # fmt: skip
    return environment


def _target_tasks(tax: TaxReport) -> int:
    """Return how many tasks the tax is over."""
    return sum(tax.tasks[target] for target in tax.targets)


def _script() -> str:
    return files("gentax.report").joinpath("templates", "filter.js").read_text(encoding="utf-8")


def _picture(heads: Sequence[Headline]) -> Markup | None:
    """Draw gain against tax, where there are several lines that have both."""
    points = [(head.name, head.gain, head.tax) for head in heads if head.gain and head.tax]
    return figures.gain_and_tax(points, 100 * FREE_WITHIN) if len(points) > 1 else None


def _overview(results: Sequence[Result], domains: Sequence[str]) -> Markup | None:
    """Draw the drops of one result, or the taxes of several."""
    if not results:
        return None
    if len(results) == 1:
        drops = results[0].tax.drop
        rows: list[tuple[str, Estimate | Undefined]] = [(t, drops[t]) for t in domains if t in drops]
        return figures.forest(rows, "points lost (right) or gained (left)", 1.0)
    rows = [(row_name(result, results), result.tax.tax) for result in results]
    return figures.forest(rows, "tax on all targets, % of the success there that was lost", 100.0, 100 * FREE_WITHIN)


def _runs(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Group runs by source and arm, and draw a panel for each metric that any of the group has."""
    groups: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        groups.setdefault((curve.source, curve.arm), []).append(curve)
    shown = []
    for (source, arm), runs in groups.items():
        panels = []
        for key, title, percent in METRICS:
            series = []
            for colour, run in enumerate(runs):
                series.append((*figures.finite(run.rows, key), colour, False))
                if key == "success":
                    series += [(*figures.finite(run.rows, unseen), colour, True) for unseen in UNSEEN_TASKS]
            series = [s for s in series if s[0]]
            if series:
                panels.append(
                    (title, figures.curve_panel(f"{source}, {arm}: {title}", series, percent, key == "success"))
                )
        colours = [figures.LINES[i % len(figures.LINES)] for i in range(len(runs))]
        seeds = [(run.seed, colour) for run, colour in zip(runs, colours, strict=True)]
        if not panels:  # of imitation alone there is nothing to see
            continue
        shown.append({"source": source, "arm": arm, "seeds": seeds, "panels": panels})
    return shown


def _axes_figure(report: Report) -> Markup | None:
    if len(report.axes) < 2:
        return None
    points = [(a.domain, a.observation_characters, a.planning) for a in report.axes]
    return figures.scatter(points, "state richness, characters of the observation", "planning complexity, steps")

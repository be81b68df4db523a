"""The page: one HTML file that needs nothing else; and the folder that holds it with episodes, tables and pictures.

The page makes no request, and nothing in it is trusted. Everything that enters the template is escaped by Jinja2, after
its invisible characters are written out (`finalize`). Should anything slip through, a Content-Security-Policy forbids
requests and every script except the one that filters episodes (known by its hash).
"""

from __future__ import annotations

import shlex
import sys
import time
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gentax.core import Episode, UsageError
from gentax.core.episode import EPISODES_FILE, write_episodes
from gentax.core.files import atomic_file, atomic_folder, write_json
from gentax.evals.evaluate import Evaluation
from gentax.metrics.statistics import Estimate, Undefined
from gentax.metrics.statistics.power import FREE_WITHIN
from gentax.metrics.tax import TaxReport
from gentax.metrics.verdict import caveats, number, sentences, signed
from gentax.report import figures
from gentax.report.figures import Point, Series
from gentax.report.model import (
    Curve,
    EpisodePair,
    Report,
    Result,
    base_success,
    random_success,
    representative_pairs,
)
from gentax.report.style import DARK, LIGHT, LINES, css_variables, inline_svg, save, shade
from gentax.report.tables import tables
from gentax.report.text import SummaryLine, dotted, duration, no_break, notes, one_line, row_name, summary, visible

METRICS = (  # key, title, whether it is a fraction
    ("success", "success, train and validation tasks", True),
    ("return", "return", False),
    ("length", "episode length, steps", False),
    ("invalid", "invalid actions", True),
    ("entropy", "entropy, nats per token", False),
    ("kl", "KL to the start, nats per token", False),
)
VALIDATION = ("validation_success", "test_success")  # keys of success on tasks that are not trained on
# The files of a folder that `write_folder` writes.
PAGE, RESULT, TABLES = "report.html", "result.json", "tables"
PICTURES = ("matrix.svg", "matrix.png")
POLICIES = ("base", "tuned")  # folders with the episodes of each, as `gentax diagnose` reads them


def write(report: Report, path: str | Path) -> None:
    """Write `report` as one HTML file to `path`, whole or not at all."""
    text = render(report)
    with atomic_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def render(report: Report) -> str:
    """Return `report` as an HTML document. The same report gives the same text."""
    results, columns, lines = report.results, report.columns(), summary(report.results)
    script = files("gentax.report").joinpath("templates", "filter.js").read_text(encoding="utf-8")
    answer: list[str] = []
    details: list[str] = []
    if len(results) == 1:
        tax_text, last = sentences(results[0].tax), len(caveats(results[0].tax))
        answer, details = tax_text[:2], tax_text[2 : len(tax_text) - last]
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            report=report,
            answer=answer,
            details=details,
            lines=lines,
            notes=notes(results),
            tradeoff=_tradeoff(lines),
            tables=tables(report),
            script=Markup(script),
            script_hash=b64encode(sha256(script.encode()).digest()).decode(),
            domains=columns,
            random=random_success(results),
            init=base_success(results),
            tasks_left_out=sum(n for result in results for n in result.tax.excluded_tasks.values()),
            light=css_variables(LIGHT),
            dark=css_variables(DARK),
            forest=_forest(results, columns),
            runs=_runs(report.curves),
            axes_plot=_axes_plot(report),
            settings=dotted(report.settings),
            free_within=FREE_WITHIN,
        )
    )


def check_folder(out: Path | None) -> None:
    """Refuse a folder that holds something other than an earlier result, before anything is played for it.

    Raises:
        UsageError: a file, or a folder that holds a file which `write_folder` does not write.
    """
    if out is None or not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; --out takes a folder")
    known = {PAGE, RESULT, TABLES, *PICTURES, *POLICIES}
    if foreign := sorted(path.name for path in out.iterdir() if path.name not in known):
        raise UsageError(f"{out} holds {foreign[0]!r}, which is no part of a result; use a new or empty folder")


def write_folder(
    out: Path, report: Report, episodes: Mapping[str, Sequence[Episode]], result: Mapping[str, Any]
) -> None:
    """Write a report to the folder `out`, whole or not at all; an earlier result there is replaced.

    Args:
        out: the folder (see `check_folder`).
        report: what the page and the tables show.
        episodes: by policy, of `POLICIES`; empty where nothing was played.
        result: the numbers as JSON values.
    """
    check_folder(out)
    with atomic_folder(out) as folder:
        (folder / PAGE).write_text(render(report), encoding="utf-8")
        (folder / TABLES).mkdir()
        for name, table in tables(report).items():
            (folder / TABLES / f"{name}.csv").write_text(table.csv(), encoding="utf-8")
        for name in PICTURES:
            save(figures.success_matrix(report), folder / name)
        for policy, its_episodes in episodes.items():
            (folder / policy).mkdir()
            write_episodes(folder / policy / EPISODES_FILE, its_episodes)
        write_json(folder / RESULT, result)


def write_tax(
    out: Path,
    tax: TaxReport,
    result: Mapping[str, Any],
    domains: Sequence[str],
    settings: Mapping[str, Any],
    evaluations: tuple[Evaluation, Evaluation] | None = None,
) -> None:
    """Write the tax of one policy with `write_folder`.

    Args:
        out: the folder.
        tax: what was measured.
        result: the numbers as JSON values.
        domains: columns of the matrix, in order.
        settings: shown on the page.
        evaluations: of the base and the tuned policy, where they were played for it.
    """
    episodes: dict[str, list[Episode]] = {}
    pairs: list[EpisodePair] = []
    about = ""
    if evaluations is not None:
        base, tuned = evaluations
        about = f"{tuned.policy}, trained on {tax.source}, compared with {base.policy}."
        for policy, evaluation in zip(POLICIES, evaluations, strict=True):
            episodes[policy] = [episode for of_domain in evaluation.episodes.values() for episode in of_domain]
        for name, before in base.episodes.items():
            pairs += representative_pairs(before, tuned.episodes[name])
    report = Report(
        title=f"What training on {tax.source} cost",
        about=about,
        results=(Result(tax),),
        domains=tuple(domains),
        pairs=tuple(pairs),
        settings=settings,
        versions={name: version(name) for name in ("gentax", "torch", "transformers", "numpy")},
        command=shlex.join(["gentax", *sys.argv[1:]]),
        made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )
    write_folder(out, report, episodes, result)


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
    filters = {"number": number, "signed": signed, "shade": shade, "duration": duration, "one_line": one_line}
    environment.filters |= {**filters, "no_break": no_break, "target_tasks": _target_tasks}
    return environment


def _target_tasks(tax: TaxReport) -> int:
    """Return how many tasks the tax is over."""
    return sum(tax.tasks[target] for target in tax.targets)


def _tradeoff(lines: Sequence[SummaryLine]) -> Markup | None:
    """Draw gain against tax, where several arms have both."""
    points = [(line.name, line.gain, line.tax) for line in lines if line.gain and line.tax]
    if len(points) < 2:
        return None
    return inline_svg(figures.tradeoff_plot(points, 100 * FREE_WITHIN), "Gain on the source against tax on the targets")


def _forest(results: Sequence[Result], domains: Sequence[str]) -> Markup | None:
    """Draw the drops of one result, or the taxes of several."""
    if not results:
        return None
    if len(results) == 1:
        drops = results[0].tax.drop
        rows: list[tuple[str, Estimate | Undefined]] = [(t, drops[t]) for t in domains if t in drops]
        label = "points lost (right) or gained (left)"
        return inline_svg(figures.forest_plot(rows, label, 1.0), label)
    rows = [(row_name(result, results), result.tax.tax) for result in results]
    label = "tax on all targets, % of the success there that was lost"
    return inline_svg(figures.forest_plot(rows, label, 100.0, 100 * FREE_WITHIN), label)


def _runs(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Group runs by source and arm, and draw a panel for each metric that any run of the group has."""
    groups: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        groups.setdefault((curve.source, curve.arm), []).append(curve)
    shown = []
    for (source, arm), runs in groups.items():
        panels = []
        for key, title, fraction in METRICS:
            keys = [(key, False), *((k, True) for k in VALIDATION if key == "success")]
            series = [Series(*_finite(run.rows, k), n, unseen) for n, run in enumerate(runs) for k, unseen in keys]
            if series := [one for one in series if one.steps]:
                figure = figures.learning_curve(series, fraction, full_range=key == "success")
                panels.append((title, inline_svg(figure, f"{source}, {arm}: {title}")))
        if panels:  # a run of supervised fine-tuning alone has none
            seeds = [(run.seed, LINES[n % len(LINES)]) for n, run in enumerate(runs)]
            shown.append({"source": source, "arm": arm, "seeds": seeds, "panels": panels})
    return shown


def _finite(rows: Iterable[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Return the steps and values of the rows with a finite `key`; a row without `step` counts from 1."""
    pairs = [(float(row.get("step", n)), row.get(key)) for n, row in enumerate(rows, 1)]
    finite = [(step, float(v)) for step, v in pairs if isinstance(v, (int, float)) and np.isfinite(v)]
    return [step for step, _ in finite], [value for _, value in finite]


def _axes_plot(report: Report) -> Markup | None:
    if len(report.axes) < 2:
        return None
    points = [Point(a.domain, a.observation_characters, a.planning) for a in report.axes]
    labels = "state richness, characters of the observation", "planning complexity, steps"
    return inline_svg(figures.axes_plot(points, *labels, (figures.WIDTH, 3.3)), " against ".join(reversed(labels)))

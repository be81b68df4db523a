"""The page: one HTML file that needs no network; and the folder that holds it with episodes, tables and plots.

Nothing in the page is trusted. Everything that enters the template is escaped by Jinja2, after its invisible characters
are written out (`finalize`). Should anything slip through, a Content-Security-Policy forbids requests and every script
except the one that shows episodes (known by its hash) and those that it loads from the folder beside the page.
"""

from __future__ import annotations

import shlex
import sys
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache, partial
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gentax.core import Episode, UsageError
from gentax.core.console import one_line, visible
from gentax.core.episode import EPISODES_FILE
from gentax.core.episode import write_episodes as write_episodes_file
from gentax.core.files import atomic_folder, write_json
from gentax.core.imports import installed_versions
from gentax.evals.evaluate import Evaluation
from gentax.metrics.behaviour import KINDS
from gentax.metrics.gate import GateResult
from gentax.metrics.statistics.power import FREE_WITHIN
from gentax.metrics.tax import TaxReport
from gentax.metrics.verdict import caveats, number, sentences, signed
from gentax.report import ArmResult, EpisodeSet, Report, base_success, random_success
from gentax.report.episodes import ALL_CHANGES, EpisodeIndex, write_episodes
from gentax.report.exports import LearningPlots, TitledFigure, learning_plots, plots, tables
from gentax.report.figures import line_style
from gentax.report.style import DARK, LIGHT, css_variables, save, shade
from gentax.report.text import breakable, claim_notes, claim_rows, dotted, duration, lead, no_break, notes, summary

# What a report's folder holds.
PAGE, TABLES, FIGURES, EPISODES = "report.html", "tables", "figures", "episodes"
RESULT = "result.json"  # of `gentax tax`
POLICIES = ("base", "tuned")  # folders with the episodes of each, as `gentax diagnose` reads them


def write_report(report: Report, folder: Path) -> None:
    """Write the page to `folder`, which is there, and beside it the episodes, the tables and the plots as files.

    Raises:
        OSError: with a message of one line, such as for a full disk; what was written until then is left.
    """
    try:
        _write_report(report, folder)
    except OSError as fault:
        raise OSError(f"the report could not be written to {folder}: {fault.strerror or fault}") from None


def _write_report(report: Report, folder: Path) -> None:
    index = write_episodes(report.episodes, folder / EPISODES)
    drawn, learning = plots(report), learning_plots(report.curves)
    (folder / PAGE).write_text(_render(report, index, drawn, learning), encoding="utf-8")
    for name, csv in tables(report).items():
        (folder / TABLES).mkdir(exist_ok=True)
        (folder / TABLES / f"{name}.csv").write_text(csv, encoding="utf-8")
    for name, plot in (drawn | {f"learning-{n}": one.whole for n, one in enumerate(learning, 1)}).items():
        for suffix in (".svg", ".pdf"):
            save(plot.figure, folder / FIGURES / f"{name}{suffix}")


def render(report: Report) -> str:
    """Return `report` as an HTML document without its episodes. The same report gives the same text."""
    return _render(report, EpisodeIndex(), plots(report), learning_plots(report.curves))


def _render(
    report: Report, index: EpisodeIndex, drawn: Mapping[str, TitledFigure], learning: Sequence[LearningPlots]
) -> str:
    results, lines = report.results, summary(report.results)
    script = files("gentax.report").joinpath("templates", "episodes.js").read_text(encoding="utf-8")
    answer, details = [lead(lines)] if results else [], list[str]()
    if len(results) == 1:
        said, last = sentences(results[0].tax), len(caveats(results[0].tax))
        answer, details = said[:2], said[2 : len(said) - last]
    template = _environment().get_template("page.html.jinja")
    return template.render(
        report=report,
        answer=answer,
        details=details,
        lines=lines,
        notes=notes(results),
        claims=claim_rows(report.claims),
        claim_notes=claim_notes(report.claims),
        plots=drawn,
        learning=learning,
        tables=tables(report),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        domains=report.columns(),
        random=random_success(results),
        init=base_success(results),
        tasks_left_out=sum(n for result in results for n in result.tax.excluded_tasks.values()),
        light=css_variables(LIGHT),
        dark=css_variables(DARK),
        settings=dotted(report.settings),
        free_within=FREE_WITHIN,
        index=index,
        changes=ALL_CHANGES,
        kinds=tuple(KINDS),
    )


def check_report_folder(out: Path) -> None:
    """Refuse a folder that holds something other than an earlier result, before anything is played for it.

    Raises:
        UsageError: a file, or a folder that holds a file which `write_folder` does not write.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; --out takes a folder")
    known = {PAGE, RESULT, TABLES, FIGURES, EPISODES, *POLICIES}
    if foreign := sorted(path.name for path in out.iterdir() if path.name not in known):
        raise UsageError(f"{out} holds {foreign[0]!r}, which is no part of a result; use a new or empty folder")


def write_folder(
    out: Path, report: Report, episodes: Mapping[str, Sequence[Episode]], result: Mapping[str, Any]
) -> None:
    """Write a report, the episodes of each of `POLICIES` (none where nothing was played) and the numbers as JSON to
    the folder `out`, whole or not at all; an earlier result there is replaced."""
    check_report_folder(out)
    with atomic_folder(out) as folder:
        _write_report(report, folder)
        for policy, its_episodes in episodes.items():
            (folder / policy).mkdir()
            write_episodes_file(folder / policy / EPISODES_FILE, its_episodes)
        write_json(folder / RESULT, result)


def write_tax(
    out: Path,
    tax: TaxReport,
    result: Mapping[str, Any],
    domains: Sequence[str],
    settings: Mapping[str, Any],
    evaluations: tuple[Evaluation, Evaluation] | None = None,
    gate: GateResult | None = None,
) -> None:
    """Write the tax of one policy with `write_folder`: `domains` are the columns of the matrix, `evaluations` those of
    the base and the tuned policy where they were played for it, and `gate` is what a release gate says of it."""
    episodes: dict[str, list[Episode]] = {}
    sets: list[EpisodeSet] = []
    about = ""
    if evaluations is not None:
        base, tuned = evaluations
        about = f"{tuned.policy}, trained on {tax.source}, compared with {base.policy}."
        for policy, evaluation in zip(POLICIES, evaluations, strict=True):
            episodes[policy] = evaluation.all_episodes()
        for name, before in base.episodes.items():
            after = tuned.episodes[name]
            sets += [EpisodeSet(name, partial(list, before)), EpisodeSet(name, partial(list, after), "tuned")]
    report = Report(
        title=f"What training on {tax.source} cost",
        about=about,
        results=(ArmResult(tax),),
        gate=gate,
        domains=tuple(domains),
        episodes=tuple(sets),
        settings=settings,
        versions=installed_versions("gentax", "torch", "transformers", "numpy"),
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
    texts = {"one_line": one_line, "no_break": no_break, "breakable": breakable, "duration": duration, "link": _link}
    numbers = {"number": number, "signed": signed, "shade": shade, "line_style": line_style}
    numbers["target_tasks"] = lambda tax: sum(tax.tasks[target] for target in tax.targets)
    environment.filters |= texts | numbers
    return environment


def _link(text: str, media_type: str) -> Markup:
    """Return a `data:` URL that holds a whole file, for a link that works wherever the page is."""
    return Markup(f"data:{media_type};charset=utf-8,{quote(text, safe='')}")

"""A tax as a folder to keep or to send: the page, the episodes, the tables, the matrix as a picture, the numbers."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gentax.core import Episode, UsageError
from gentax.core.files import whole_folder, write_json
from gentax.core.record import NAME, write_episodes
from gentax.evals.evaluate import Evaluation
from gentax.metrics.tax import TaxReport
from gentax.report.matrix_picture import plot_matrix
from gentax.report.model import EpisodePair, Report, Result
from gentax.report.page import render
from gentax.report.pairs import telling_pairs
from gentax.report.tables import tables

PAGE, RESULT, TABLES = "report.html", "result.json", "tables"
PICTURES = ("matrix.svg", "matrix.png")
POLICIES = ("base", "tuned")  # folders with the episodes of each, as `gentax diagnose` reads them


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
    found = sorted(path.name for path in out.iterdir() if path.name not in known)
    if found:
        raise UsageError(f"{out} holds {found[0]!r}, which is no part of a result; --out takes a new or empty folder")


def write_folder(
    out: Path, report: Report, episodes: Mapping[str, Sequence[Episode]], result: Mapping[str, Any]
) -> None:
    """Write everything about a tax to the folder `out`, whole or not at all; an earlier result there is replaced.

    Args:
        out: the folder (see `check_folder`).
        report: what the page and the tables show.
        episodes: by policy, of `POLICIES`; none where nothing was played.
        result: the numbers as JSON values.
    """
    check_folder(out)
    with whole_folder(out) as folder:
        (folder / PAGE).write_text(render(report), encoding="utf-8")
        (folder / TABLES).mkdir()
        for name, table in tables(report).items():
            (folder / TABLES / f"{name}.csv").write_text(table.csv(), encoding="utf-8")
        for name in PICTURES:
            plot_matrix(report, folder / name)
        for policy, played in episodes.items():
            (folder / policy).mkdir()
            write_episodes(folder / policy / NAME, played)
        write_json(folder / RESULT, result)


def write_tax(
    out: Path,
    tax: TaxReport,
    result: Mapping[str, Any],
    domains: Sequence[str],
    settings: Mapping[str, Any],
    played: tuple[Evaluation, Evaluation] | None = None,
) -> None:
    """Write the tax of one policy as `write_folder` does.

    Args:
        out: the folder.
        tax: what was measured.
        result: the numbers as JSON values.
        domains: columns of the matrix, in order.
        settings: what the page names as settings.
        played: the evaluations of the base and the tuned policy, where they were played for it.
    """
    episodes: dict[str, list[Episode]] = {}
    pairs: list[EpisodePair] = []
    about = ""
    if played is not None:
        about = f"{played[1].policy}, trained on {tax.source}, beside {played[0].policy}."
        for who, evaluation in zip(POLICIES, played, strict=True):
            episodes[who] = [episode for of in evaluation.episodes.values() for episode in of]
        for name, before in played[0].episodes.items():
            pairs += telling_pairs(before, played[1].episodes[name])
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

"""The matrix of a report as a picture that stands alone: success on every domain, and the change against the base."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gentax.metrics.statistics import Estimate
from gentax.metrics.verdict import number, signed
from gentax.report.headline import row_name
from gentax.report.model import Report, base_success, random_success
from gentax.report.palette import LIGHT, shade
from gentax.report.plots import any_script, check_picture, save
from gentax.report.text import one_line

CELL = (1.15, 0.62)  # inches


def plot_matrix(report: Report, path: str | Path) -> None:
    """Draw the matrix as SVG, PNG or PDF, by the end of the name of `path`.

    Raises:
        UsageError: another suffix.
    """
    check_picture(path)
    domains, init, chance = report.columns(), base_success(report.results), random_success(report.results)
    names = ["before", *(one_line(row_name(result, report.results), 30) for result in report.results)]
    names += ["random play"] if chance else []
    label = 0.5 + 0.085 * max(map(len, names))
    figure = Figure(figsize=(label + CELL[0] * len(domains), 0.75 + CELL[1] * len(names)), layout="constrained")
    figure.patch.set_facecolor(LIGHT["page"])
    panel = figure.add_subplot()
    panel.set_xlim(0, len(domains))
    panel.set_ylim(len(names), 0)

    def cell(row: int, column: int, success: float, drop: Estimate | None, home: bool = False) -> None:
        face = "faint" if drop is None else shade(drop.value) if not drop.holds(0) else "card"
        edge = LIGHT["ink"] if home else LIGHT["line"]
        panel.add_patch(
            Rectangle((column + 0.03, row + 0.05), 0.94, 0.9, facecolor=LIGHT[face], edgecolor=edge, linewidth=1)
        )
        middle = row + (0.5 if drop is None else 0.36)
        panel.text(column + 0.5, middle, number(success), ha="center", va="center", color=LIGHT["ink"], size=11)
        if drop is not None:
            said = f"{signed(-drop.value)}{'' if not drop.holds(0) else ' ?'}"
            panel.text(column + 0.5, row + 0.7, said, ha="center", va="center", color=LIGHT["ink"], size=8.5)

    for column, name in enumerate(domains):
        if name in init:
            cell(0, column, init[name].value, None)
        for row, result in enumerate(report.results, 1):
            tax = result.tax
            if name in tax.after:
                cell(row, column, tax.after[name].value, tax.lost(name), home=name == tax.source)
        if name in chance:
            cell(len(names) - 1, column, chance[name].value, None)
    panel.set_yticks([n + 0.5 for n in range(len(names))], names, parse_math=False)
    panel.set_xticks([n + 0.5 for n in range(len(domains))], [one_line(d, 14) for d in domains], parse_math=False)
    panel.xaxis.tick_top()
    panel.tick_params(colors=LIGHT["ink"], length=0, labelsize=9)
    panel.spines[:].set_visible(False)
    panel.set_facecolor(LIGHT["page"])
    panel.set_xlabel(
        "success on test tasks, %; below it the change in points (?: not told apart from 0)",
        color=LIGHT["soft"],
        size=8.5,
    )
    with any_script():
        save(figure, path)

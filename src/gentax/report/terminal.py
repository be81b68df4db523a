"""The first screen of a report in a terminal: a summary line for each arm, then success on every domain.

Colour repeats what signs and marks say; `NO_COLOR`, a pipe and a file get none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from gentax.core.console import one_line
from gentax.metrics.claim_testing import ClaimOutcome, ClaimResult
from gentax.metrics.statistics import Estimate
from gentax.metrics.verdict import Verdict, number, signed
from gentax.report import ArmResult, base_success, random_success
from gentax.report.style import LIGHT, shade
from gentax.report.text import claim_rows, notes, row_name, summary

NAME = 32  # characters of a row's name at most
BASIC_COLOURS = {  # (loss or gain, at least 10 points) -> style in a terminal with 16 colours
    ("loss", False): "black on yellow",
    ("loss", True): "white on red",
    ("gain", False): "black on cyan",
    ("gain", True): "white on blue",
}
CLAIM_STYLES = {ClaimOutcome.SUPPORTED: "bold green", ClaimOutcome.REFUTED: "bold red", ClaimOutcome.UNDECIDED: "dim"}
VERDICT_STYLES = {Verdict.COSTS: "bold red", Verdict.TRANSFERS: "bold blue", Verdict.FREE: "bold green"}


def first_screen(results: Sequence[ArmResult], domains: Sequence[str], console: Console) -> RenderableType:
    """Return the summary, its notes and the matrix, for the width and colours of `console`."""
    note_lines = [Text(one_line(note, 1000), style="dim") for note in notes(results)]
    return Group(_summary_table(results), Text(), *note_lines, Text(), *_matrix(results, domains, console))


def claims_table(claims: Sequence[ClaimResult]) -> Table:
    """Return the claims as a table for a terminal."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for column in ("claim", "outcome", "estimate", "p"):
        table.add_column(column, no_wrap=column in ("outcome", "p"), justify="right" if column == "p" else "left")
    for row in claim_rows(claims):
        estimate = Text(one_line(row.estimate, 400))
        if row.needed:
            estimate.append(f"\nwould take {row.needed}", style="dim")
        name = Text(one_line(row.claim, 400), style="bold")
        table.add_row(name, Text(row.outcome, style=CLAIM_STYLES[row.outcome]), estimate, Text(row.p))
    return table


def _summary_table(results: Sequence[ArmResult]) -> Table:
    """Return a row for each arm: gain on the source, tax on the targets, verdict."""
    sources = {result.tax.source for result in results}
    table = _table()
    table.add_column(Text(f"on {one_line(sources.pop(), NAME)}" if len(sources) == 1 else "trained on"), no_wrap=True)
    table.add_column("gain on source", no_wrap=True)
    table.add_column("tax on targets", no_wrap=True)
    table.add_column("verdict")
    for line in summary(results):
        style = "bold green" if line.helps else VERDICT_STYLES.get(line.verdict, "")
        name, verdict = Text(one_line(line.name, NAME), style="bold"), Text(line.verdict_text, style=style)
        table.add_row(name, Text(line.gain_text), Text(line.tax_text), verdict)
    return table


def _matrix(results: Sequence[ArmResult], domains: Sequence[str], console: Console) -> list[RenderableType]:
    """Return success on every domain, and below it the change against the base; in several tables where it is wide."""
    blocks: list[list[str]] = [[]]
    for domain in domains:
        wider = _block(results, [*blocks[-1], domain], console)
        if blocks[-1] and Measurement.get(console, console.options.update(width=10_000), wider).minimum > console.width:
            blocks.append([])
        blocks[-1].append(domain)
    parts: list[RenderableType] = []
    for block in blocks:
        parts += [_block(results, block, console), Text()]
    parts.append(Text("▼ ▲ change in points, told apart from 0;  ▽ △ not told apart from 0", style="dim"))
    if any(result.tax.touched for result in results):
        parts.append(Text("* the arm was trained with text of this domain", style="dim"))
    return parts


def _block(results: Sequence[ArmResult], domains: Sequence[str], console: Console) -> Table:
    """Return some columns of the matrix. The last character of each cell is kept for a mark."""
    init, random = base_success(results), random_success(results)
    table = _table()
    table.add_column("success %", no_wrap=True, vertical="bottom", min_width=len("random play"))
    widths = {}
    for d in domains:
        parts = _heading(d)
        widths[d] = 1 + max(6, *map(len, parts))
        table.add_column(
            Text("\n".join(f"{part} ".rjust(widths[d]) for part in parts)), no_wrap=True, vertical="bottom"
        )

    def plain_row(name: str, success: Mapping[str, Estimate], style: str = "") -> None:
        cells = (f"{number(success[d].value)} " if d in success else "– " for d in domains)
        table.add_row(
            name, *(cell.rjust(width) for cell, width in zip(cells, widths.values(), strict=True)), style=style
        )

    plain_row("base", init)
    for result in results:
        cells = [_cells(result, d, widths[d], console) for d in domains]
        table.add_row(Text(one_line(row_name(result, results), NAME), "bold"), *(success for success, _ in cells))
        table.add_row("", *(change for _, change in cells))
    if random:
        plain_row("random play", random, "dim")
    return table


def _cells(result: ArmResult, domain: str, width: int, console: Console) -> tuple[Text, Text]:
    """Return success after training, and the change."""
    tax = result.tax
    if domain not in tax.after:
        return Text("– ".rjust(width)), Text()
    drop = tax.lost(domain)
    success = number(tax.after[domain].value) + ("*" if domain in tax.touched else " ")
    if drop is None:
        return Text(success.rjust(width)), Text()
    decided = not drop.contains(0.0)
    mark = "▼▲▽△"[2 * (not decided) + (drop.value < 0)] if drop.value else " "
    name, style = shade(drop.value), ""
    if decided and name != "card":
        enough_colours = console.color_system in ("256", "truecolor")
        style = f"{LIGHT['ink']} on {LIGHT[name]}" if enough_colours else BASIC_COLOURS[name[:4], name[-1] > "2"]
    return Text(success.rjust(width), style=style), Text(f"{signed(-drop.value)}{mark}".rjust(width), style=style)


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")


def _heading(domain: str) -> list[str]:
    """Return the name of a domain in one part, or two where it is long and has a hyphen."""
    name = one_line(domain, 80)
    first, hyphen, second = name.partition("-")
    return [f"{first}{hyphen}", second[:24]] if len(name) > 9 and first and second else [name[:24]]

"""The first screen of a report in a terminal: a line for each arm, then success on every domain.

Colour repeats what signs and marks say, and is left out where the terminal has none (`NO_COLOR`, a pipe, a file).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gentax.metrics.statistics import Estimate
from gentax.metrics.verdict import Verdict, number, signed
from gentax.report.headline import headlines, notes, row_name
from gentax.report.model import Result, base_success, random_success
from gentax.report.palette import LIGHT, shade
from gentax.report.text import one_line

NAME = 32  # characters of a row's name at most
GAP = 2  # columns between two cells
SIXTEEN = {  # loss or gain, whether of 10 points and more -> what terminals with few colours show
    ("loss", False): "black on yellow",
    ("loss", True): "white on red",
    ("gain", False): "black on cyan",
    ("gain", True): "white on blue",
}
STYLES = {Verdict.COSTS: "bold red", Verdict.TRANSFERS: "bold blue", Verdict.FREE: "bold green"}


def first_screen(results: Sequence[Result], domains: Sequence[str], console: Console) -> RenderableType:
    """Return the headlines, what must be known to read them, and the matrix, for the width and colours of `console`."""
    parts: list[RenderableType] = [lines(results), Text()]
    parts += [Text(one_line(note, 1000), style="dim") for note in notes(results)]
    return Group(*parts, Text(), matrix(results, domains, console))


def lines(results: Sequence[Result]) -> Table:
    """Return a line for each arm: gain at home, tax elsewhere, verdict."""
    sources = {result.tax.source for result in results}
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
    head = f"on {one_line(sources.pop(), NAME)}" if len(sources) == 1 else "trained on"
    table.add_column(Text(head), no_wrap=True)
    table.add_column("gain at home", no_wrap=True)
    table.add_column("tax elsewhere", no_wrap=True)
    table.add_column("verdict")
    for line in headlines(results):
        style = "bold green" if line.helps else STYLES.get(line.kind, "")
        table.add_row(
            Text(one_line(line.name, NAME), style="bold"), Text(line.gain_text), Text(line.tax_text),
            Text(line.verdict, style=style),
        )  # fmt: skip
    return table


def matrix(results: Sequence[Result], domains: Sequence[str], console: Console) -> RenderableType:
    """Return success on every domain, and below it the change against the base; in blocks where it is wide."""
    width, few = console.width, console.color_system not in ("256", "truecolor")
    names = [one_line(row_name(result, results), NAME) for result in results]
    chance = random_success(results)
    label = max(map(len, [*names, "success %", "random play"]))
    widths = {d: 1 + max(6, *map(len, _head(d))) for d in domains}
    blocks: list[list[str]] = [[]]
    room = width - label
    for d in domains:
        room -= widths[d] + GAP
        if room < 0 and blocks[-1]:
            blocks.append([])
            room = width - label - widths[d] - GAP
        blocks[-1].append(d)
    parts: list[RenderableType] = []
    for block in blocks:
        parts += [_block(results, names, block, chance, label, widths, few), Text()]
    parts.append(Text("▼ ▲ change in points, told apart from 0;  ▽ △ not told apart from 0", style="dim"))
    if any(result.tax.touched for result in results):
        parts.append(Text("* the arm was trained with text of this domain", style="dim"))
    return Group(*parts)


def _block(
    results: Sequence[Result],
    names: Sequence[str],
    domains: Sequence[str],
    chance: Mapping[str, Estimate],
    label: int,
    widths: Mapping[str, int],
    few: bool,
) -> Text:
    """Return some columns of the matrix. A last character in each cell is kept for a mark."""

    def line(name: Text, cells: Sequence[Text]) -> Text:
        row = Text(no_wrap=True)
        name.pad_right(label - len(name))
        row.append_text(name)
        for d, cell in zip(domains, cells, strict=True):
            row.append(" " * (GAP + widths[d] - len(cell)))
            row.append_text(cell)
        return row

    def plain(of: Mapping[str, Estimate], style: str = "") -> list[Text]:
        return [Text((number(of[d].value) if d in of else "–") + " ", style=style) for d in domains]

    init = base_success(results)
    heads = {d: _head(d) for d in domains}
    deep = max(map(len, heads.values()))
    rows = []
    for n in range(deep):
        words = [([""] * (deep - len(head)) + head)[n] + " " for head in heads.values()]
        rows.append(line(Text("success %" if n == deep - 1 else "", "dim"), [Text(word, "dim") for word in words]))
    rows.append(line(Text("base"), plain(init)))
    for result, name in zip(results, names, strict=True):
        cells = [_cell(result, d, widths[d], few) for d in domains]
        rows.append(line(Text(name, "bold"), [success for success, _ in cells]))
        rows.append(line(Text(), [change for _, change in cells]))
    if chance:
        rows.append(line(Text("random play", "dim"), plain(chance, "dim")))
    return Text("\n", no_wrap=True).join(rows)


def _cell(result: Result, domain: str, width: int, few: bool) -> tuple[Text, Text]:
    """Return success after training, and the change; `few` where there are no more than 16 colours."""
    tax = result.tax
    if domain not in tax.after:
        return Text("– "), Text()
    drop = tax.lost(domain)
    success = number(tax.after[domain].value) + ("*" if domain in tax.touched else " ")
    if drop is None:
        return Text(success), Text()
    known = not drop.holds(0.0)
    mark = "▼▲▽△"[2 * (not known) + (drop.value < 0)] if drop.value else " "
    name, style = shade(drop.value), ""
    if known and name != "card":
        style = SIXTEEN[name[:4], name[-1] > "2"] if few else f"{LIGHT['ink']} on {LIGHT[name]}"
    return Text(success.rjust(width), style=style), Text(f"{signed(-drop.value)}{mark}".rjust(width), style=style)


def _head(domain: str) -> list[str]:
    """Break the name of a domain that is long at a hyphen."""
    name = one_line(domain)
    if len(name) <= 9 or "-" not in name.strip("-"):
        return [name[:24]]
    first, _, rest = name.partition("-")
    return [f"{first}-", rest[:24]]

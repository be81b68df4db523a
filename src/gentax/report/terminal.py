"""The first screen of a report in a terminal: a line for each arm, then success on every domain.

Colour repeats what signs and marks say, and is left out where the terminal has none (`NO_COLOR`, a pipe, a file).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gentax.core.text_table import one_line
from gentax.measure.statistics import Estimate
from gentax.measure.verdict import Verdict, number, signed
from gentax.report.headline import headlines, notes, row_name
from gentax.report.model import Result
from gentax.report.palette import LIGHT, shade

GAP = 2  # columns between two cells
STYLES = {Verdict.COSTS: "bold red", Verdict.TRANSFERS: "bold blue", Verdict.FREE: "bold green"}


def first_screen(results: Sequence[Result], domains: Sequence[str], width: int) -> RenderableType:
    """Return the headlines, what must be known to read them, and the matrix in at most `width` columns."""
    parts: list[RenderableType] = [lines(results), Text()]
    parts += [Text(one_line(note), style="dim") for note in notes(results)]
    return Group(*parts, Text(), matrix(results, domains, width))


def lines(results: Sequence[Result]) -> Table:
    """Return a line for each arm: gain at home, tax elsewhere, verdict."""
    sources = {result.tax.source for result in results}
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(f"on {one_line(sources.pop())}" if len(sources) == 1 else "trained on", no_wrap=True)
    table.add_column("gain at home", no_wrap=True)
    table.add_column("tax elsewhere", no_wrap=True)
    table.add_column("verdict")
    for line in headlines(results):
        style = "bold green" if line.helps else STYLES.get(line.kind, "")
        table.add_row(
            Text(one_line(line.name), style="bold"), Text(line.gain_text), Text(line.tax_text),
            Text(line.verdict, style=style),
        )  # fmt: skip
    return table


def matrix(results: Sequence[Result], domains: Sequence[str], width: int) -> RenderableType:
    """Return success on every domain, and below it the change against the base; in blocks where it is wide."""
    names = [one_line(row_name(result, results)) for result in results]
    chance = {d: one.random for result in reversed(results) for d, one in result.tax.above_chance.items()}
    label = max(map(len, [*names, "success %", "random play"]))
    widths = {d: max(7, *map(len, _head(d))) for d in domains}
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
        parts += [_block(results, names, block, chance, label, widths), Text()]
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
) -> Table:
    table = Table(box=None, padding=(0, 0, 0, GAP), pad_edge=False, collapse_padding=True, header_style="dim")
    table.add_column("success %", width=label, no_wrap=True, vertical="bottom")
    for d in domains:
        table.add_column(
            Text("\n".join(_head(d)), justify="right"), width=widths[d] + GAP, justify="right", vertical="bottom"
        )
    init = {d: e for result in reversed(results) for d, e in result.tax.init.items()}
    table.add_row("base", *(Text(number(init[d].value) + " ") if d in init else Text("– ") for d in domains))
    for result, name in zip(results, names, strict=True):
        cells = [_cell(result, d, widths[d]) for d in domains]
        table.add_row(Text(name, style="bold"), *(success for success, _ in cells))
        table.add_row("", *(change for _, change in cells))
    if chance:
        table.add_row(
            Text("random play", style="dim"),
            *(Text((number(chance[d].value) if d in chance else "–") + " ", style="dim") for d in domains),
        )
    return table


def _cell(result: Result, domain: str, width: int) -> tuple[Text, Text]:
    """Return success after training, and the change."""
    tax = result.tax
    if domain not in tax.after:
        return Text("– "), Text()
    home = domain == tax.source
    drop = (tax.delta_id.mirrored() if tax.delta_id else None) if home else tax.drop[domain]
    success = number(tax.after[domain].value) + ("*" if domain in tax.touched else " ")
    if drop is None:
        return Text(success), Text()
    known = not drop.holds(0.0)
    mark = "▼▲▽△"[2 * (not known) + (drop.value < 0)] if drop.value else " "
    name = shade(drop.value)
    style = f"{LIGHT['ink']} on {LIGHT[name]}" if known and name != "card" else ""
    return Text(success.rjust(width), style=style), Text(f"{signed(-drop.value)}{mark}".rjust(width), style=style)


def _head(domain: str) -> list[str]:
    """Break the name of a domain that is long at a hyphen."""
    name = one_line(domain)
    if len(name) <= 9 or "-" not in name.strip("-"):
        return [name[:24]]
    first, _, rest = name.partition("-")
    return [f"{first}-", rest[:24]]

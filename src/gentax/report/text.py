"""The text of a report: the summary line of each arm, the notes below, claims, and its first screen in a terminal.

The page and the terminal show the same summary, so they cannot differ.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from gentax.core.console import one_line, visible
from gentax.metrics.claim_testing import ClaimOutcome, ClaimResult, RequiredSample
from gentax.metrics.statistics import LEVEL, SEEDS, Estimate, Undefined
from gentax.metrics.statistics.power import FREE_WITHIN
from gentax.metrics.verdict import Verdict, caveats, headline, number, signed, verdict
from gentax.report import ArmResult, base_success, random_success

UNITS = {"fraction": " %", "percent": " %", "points": " points", "points per point": ""}
SPELLED_OUT = 4  # policies whose verdicts a sentence holds
# With fewer than three seeds the past tense: what happened to these checkpoints.
_CHECKPOINT = {Verdict.COSTS: "lost", Verdict.TRANSFERS: "gained", Verdict.FREE: "kept"}


@dataclass(frozen=True)
class SummaryLine:
    """One arm in a line: gain on the source, tax on the targets, verdict."""

    name: str
    gain: Estimate | Undefined  # points
    tax: Estimate | Undefined  # fraction; on the untouched targets where training touched some
    verdict: Verdict  # on that tax
    verdict_text: str
    badge: str  # the verdict in a word
    remedy_effect: str  # what a remedy did to the tax of its baseline; empty for other arms
    untouched_only: bool  # whether the tax leaves touched targets out
    helps: bool  # whether it is a remedy whose effect is told apart from none

    @property
    def gain_text(self) -> str:
        if isinstance(self.gain, Undefined):
            return "undefined"
        return f"{signed(self.gain.value)} ({number(self.gain.low)} to {number(self.gain.high)})"

    @property
    def tax_text(self) -> str:
        return percent(self.tax) + (" *" if self.untouched_only else "")


def summary(results: Sequence[ArmResult]) -> list[SummaryLine]:
    """Return the summary line of each result."""
    return [_summary_line(result, results) for result in results]


def _summary_line(result: ArmResult, results: Sequence[ArmResult]) -> SummaryLine:
    tax = headline(result.tax)
    removed = None if result.versus_baseline is None else result.versus_baseline.tax_removed
    text = badge = verdict_text(tax, result.tax.seeds)
    effect, helps = "", False
    if isinstance(removed, Estimate):
        decided, cuts = not removed.contains(0.0), removed.value >= 0
        size = percent(removed if cuts else removed.negated())
        text = f"{'cuts' if cuts else 'adds'} {size}" + ("" if decided else ": undecided")
        effect = f"{'cuts' if cuts else 'adds'} {size} {'of' if cuts else 'to'} the tax of {result.baseline}"
        badge = "undecided" if not decided else "helps" if cuts else "harms"
        helps = decided and cuts
    name = row_name(result, results)
    untouched = result.untouched_only
    return SummaryLine(name, result.tax.delta_id, tax, verdict(tax), text, badge, effect, untouched, helps)


def lead(lines: Sequence[SummaryLine]) -> str:
    """Return the verdict on several policies in a sentence: each of up to four, counts and the extremes of more."""
    if len(lines) <= SPELLED_OUT:
        return "; ".join(map(_clause, lines)) + "."
    counts = Counter(line.badge for line in lines)
    said = [f"Of {len(lines)} trained policies: " + ", ".join(f"{n} {badge}" for badge, n in counts.most_common())]
    taxes = sorted((line.tax.value, n) for n, line in enumerate(lines) if line.tax)
    if taxes:
        ends = {"largest": lines[taxes[-1][1]], "smallest": lines[taxes[0][1]]}
        said += [f"the {which} tax is that of {line.name}, {percent(line.tax)}" for which, line in ends.items()]
    return "; ".join(said) + "."


def _clause(line: SummaryLine) -> str:
    if line.remedy_effect:
        return f"{line.name} {line.remedy_effect}" + (" (undecided)" if line.badge == "undecided" else "")
    if not line.tax:
        return f"the tax of {line.name} is undefined"
    verb = "is undecided" if line.verdict is Verdict.UNDECIDED else line.verdict_text
    return f"{line.name} {verb}: a tax of {percent(line.tax)}"


def row_name(result: ArmResult, results: Sequence[ArmResult]) -> str:
    """Name a row by what distinguishes it from the others: the source, the arm, or both."""
    if len({other.tax.source for other in results}) == 1 and (len(results) > 1 or result.arm != "plain"):
        return result.arm
    return result.tax.source if result.arm == "plain" else f"{result.tax.source}, {result.arm}"


def verdict_text(tax: Estimate | Undefined, seeds: int) -> str:
    """Return the verdict on a tax in a word or two."""
    if isinstance(tax, Undefined):
        return "undefined"
    decision = verdict(tax)
    text = str(decision) if seeds >= SEEDS else _CHECKPOINT.get(decision, str(decision))
    return f"{text} within ±{100 * FREE_WITHIN:g} %" if decision is Verdict.FREE else text


def notes(results: Sequence[ArmResult]) -> list[str]:
    """Return what one must know to read the summary, each thing once."""
    lines = []
    for result in results:
        name, tax = row_name(result, results), result.tax
        if result.untouched_only:
            of_baseline = result.baseline_tax
            versus = f"; there {result.baseline} lost {percent(of_baseline)}" if of_baseline else ""
            lines.append(
                f"* {name} was trained with text of {_listed(sorted(tax.touched))}: its tax is that of the untouched "
                f"targets ({_listed(tax.untouched)}){versus}."
            )
        elif tax.touched:
            lines.append(f"{name} was trained with text of every target: none is untouched.")
        for measure, title in {"tax": "the tax", "delta_id": "the gain on the source"}.items():
            if measure in tax.undefined:
                lines.append(f"{name}: {title} is undefined: {tax.undefined[measure]}.")
    return [*lines, *dict.fromkeys(caveat for result in results for caveat in caveats(result.tax))]


@dataclass(frozen=True)
class ClaimRow:
    """A claim as text."""

    claim: str
    outcome: ClaimOutcome
    estimate: str  # with its interval: of the left side, or of the left minus the right
    p: str  # corrected for the number of claims
    needed: str  # what an undecided claim would take; "" for others

    @property
    def badge(self) -> str:
        """The class of its badge on the page."""
        return {ClaimOutcome.SUPPORTED: "free", ClaimOutcome.REFUTED: "costs"}.get(self.outcome, "undecided")


def claim_rows(claims: Sequence[ClaimResult]) -> list[ClaimRow]:
    """Return the claims as text, in the order in which they are stated."""
    rows = []
    for one in claims:
        text = f"{one.claim.text} [{one.claim.source}]" if one.claim.source else one.claim.text
        estimate, needed = str(one.estimate), ""
        if isinstance(one.estimate, Estimate):
            unit = one.estimate.unit
            digits, scale = 2 if unit == "points per point" else 1, 100 if unit == "fraction" else 1
            estimate = "difference " * (one.claim.right is not None)
            estimate += one.estimate.text(digits, scale, UNITS.get(unit, ""))
        if one.needed is not None:
            needed = _what_it_takes(one.needed, one.estimate.seeds if one.estimate else 1)
        p = "< 0.001" if one.corrected_p < 0.001 else f"{one.corrected_p:.3f}"
        rows.append(ClaimRow(text, one.outcome, estimate, p, needed))
    return rows


def claim_notes(claims: Sequence[ClaimResult]) -> list[str]:
    """Return what the outcomes rest on, a sentence each."""
    if not claims:
        return []
    count, share = len(claims), f"{100 * (1 - LEVEL):g} %"
    together = f"{count} claims are" if count > 1 else "The claim is"
    lines = [
        f"{together} tested two-sided at {share}"
        + (", corrected for their number (Holm)" if count > 1 else "")
        + f"; intervals are {100 * LEVEL:g} %"
        + (", not corrected." if count > 1 else ".")
    ]
    if any(one.needed for one in claims):
        lines.append(
            "What an undecided claim would take: for 80 % power, were the difference what it was estimated to be."
        )
    if any(one.claim.of_training and one.estimate and one.estimate.seeds < SEEDS for one in claims):
        lines.append(f"With fewer than {SEEDS} training seeds a claim is about these checkpoints, not about training.")
    return lines


def _what_it_takes(needed: RequiredSample, seeds: int) -> str:
    """Return the seeds and tasks that a claim would take."""
    assumed = " (their spread is assumed)" if needed.spread_assumed else ""
    more_seeds = f"{needed.seeds} seeds{assumed}" if needed.seeds else "over 100 seeds"
    tasks = f"{needed.tasks:,} tasks of each domain" if needed.tasks else "over a million tasks of each domain"
    return f"{more_seeds}, or {tasks} with {'this seed' if seeds == 1 else f'these {seeds} seeds'}"


def percent(estimate: Estimate | Undefined) -> str:
    """Write a fraction as percent with its interval, such as `61 % (54 to 68)`."""
    return estimate.text(0, 100, " %") if estimate else "undefined"


def no_break(text: str) -> str:
    """Return `text` with percent signs that no line break can separate from their number."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def breakable(text: str) -> Markup:
    """Return escaped `text` in which a line may end after `+`, `-`, `_`, `,` and `/`, not in the middle of a word."""
    return Markup(re.sub(r"([+_,/-])(?=\w)", r"\1<wbr>", str(escape(visible(text)))))


def dotted(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten nested settings to (dotted key, value as text)."""
    rows = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += dotted(value, f"{prefix}{key}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            rows.append((f"{prefix}{key}", text))
    return rows


def duration(seconds: float) -> str:
    """Write a duration for a person.

    >>> duration(42), duration(754), duration(9000)
    ('42 s', '12 min 34 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]


# The first screen of a report in a terminal: a summary line for each arm, then success on every domain.
#
# Colour repeats what signs and marks say; `NO_COLOR`, a pipe and a file get none.
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
    table = _table()
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
        if blocks[-1] and Measurement.get(console, console.options.update(width=10_000), wider).maximum > console.width:
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
    from gentax.report.style import LIGHT, shade  # takes matplotlib

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

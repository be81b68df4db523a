"""What the data say of the claims of a study, in words: for the terminal, the page and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from gentax.metrics.claims import ClaimOutcome, ClaimResult, Needed
from gentax.metrics.statistics import LEVEL, SEEDS, Estimate
from gentax.metrics.verdict import number
from gentax.report.text import one_line

STYLES = {ClaimOutcome.SUPPORTED: "bold green", ClaimOutcome.REFUTED: "bold red", ClaimOutcome.UNDECIDED: "dim"}
UNITS = {"fraction": " %", "percent": " %", "points": " points", "points per point": ""}


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
            estimate = _estimate(one.estimate)
            if one.claim.right is not None:
                estimate = f"difference {estimate}"
        if one.needed is not None:
            needed = _needed(one.needed, one.estimate.seeds if one.estimate else 1)
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
        table.add_row(name, Text(row.outcome, style=STYLES[row.outcome]), estimate, Text(row.p))
    return table


def _estimate(estimate: Estimate) -> str:
    scale, digits = (
        (100.0, 1) if estimate.unit == "fraction" else (1.0, 2 if estimate.unit == "points per point" else 1)
    )
    value, low, high = (number(scale * x, digits) for x in (estimate.value, estimate.low, estimate.high))
    return f"{value}{UNITS.get(estimate.unit, '')} ({low} to {high})"


def _needed(needed: Needed, seeds: int) -> str:
    """Return the seeds and tasks that a claim would take."""
    assumed = " (their spread is assumed)" if needed.spread_assumed else ""
    more_seeds = f"{needed.seeds} seeds{assumed}" if needed.seeds else "over 100 seeds"
    tasks = f"{needed.tasks:,} tasks of each domain" if needed.tasks else "over a million tasks of each domain"
    return f"{more_seeds}, or {tasks} with {'this seed' if seeds == 1 else f'these {seeds} seeds'}"

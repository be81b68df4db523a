"""What is said first, on the page and in a terminal: each arm's gain at home, its tax elsewhere, and the verdict.

Both show these lines, so that they cannot differ. Caveats are in `notes`, each once for all lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gentax.metrics.statistics import SEEDS, Estimate, Undefined
from gentax.metrics.verdict import FREE_WITHIN, Verdict, caveats, headline, number, signed, verdict
from gentax.report.model import Result

# Of fewer seeds the past tense: what happened to these checkpoints.
_CHECKPOINT = {Verdict.COSTS: "lost", Verdict.TRANSFERS: "gained", Verdict.FREE: "kept"}


@dataclass(frozen=True)
class Headline:
    """One arm in a line."""

    name: str  # of the row
    gain: Estimate | Undefined  # points at home
    tax: Estimate | Undefined  # fraction; on the untouched targets where training touched some
    kind: Verdict  # of that tax
    verdict: str  # in words
    badge: str  # the verdict in a word
    detail: str  # what a remedy did beside the arm it is for; empty for other arms
    marked: bool  # whether the tax leaves touched targets out
    helps: bool  # whether it is a remedy that removes some of the tax, told apart from none

    @property
    def gain_text(self) -> str:
        return points(self.gain)

    @property
    def tax_text(self) -> str:
        return share(self.tax) + (" *" if self.marked else "")


def headlines(results: Sequence[Result]) -> list[Headline]:
    """Return a line for each result."""
    return [_headline(result, results) for result in results]


def _headline(result: Result, results: Sequence[Result]) -> Headline:
    tax = headline(result.tax)
    said, removed = word(tax, result.tax.seeds), None if result.beside is None else result.beside.tax_removed
    badge, detail = said, ""
    if isinstance(removed, Estimate):
        shown = removed if removed.value >= 0 else removed.mirrored()
        verb, link = ("cuts", "of") if removed.value >= 0 else ("adds", "to")
        badge = "undecided" if removed.holds(0.0) else "helps" if removed.value > 0 else "harms"
        said = f"{verb} {share(shown)}" + (": undecided" if removed.holds(0.0) else "")
        detail = f"{verb} {share(shown)} {link} the tax of {result.baseline}"
    return Headline(
        row_name(result, results),
        result.tax.delta_id,
        tax,
        verdict(tax),
        said,
        badge,
        detail,
        marked=result.marked,
        helps=isinstance(removed, Estimate) and removed.low > 0,
    )


def row_name(result: Result, results: Sequence[Result]) -> str:
    """Name a row by what tells it from the others: the source, the arm, or both."""
    if len({other.tax.source for other in results}) == 1 and (len(results) > 1 or result.arm != "plain"):
        return result.arm
    return result.tax.source if result.arm == "plain" else f"{result.tax.source}, {result.arm}"


def word(tax: Estimate | Undefined, seeds: int) -> str:
    """Return the verdict on a tax in a word or two."""
    if isinstance(tax, Undefined):
        return "undefined"
    found = verdict(tax)
    said = str(found) if seeds >= SEEDS else _CHECKPOINT.get(found, str(found))
    return f"{said} within ±{100 * FREE_WITHIN:g} %" if found is Verdict.FREE else said


def notes(results: Sequence[Result]) -> list[str]:
    """Return what must be known to read the lines, each thing once."""
    said = []
    for result in results:
        name, tax = row_name(result, results), result.tax
        if result.marked:
            there = result.baseline_tax
            beside = "" if there is None else f"; there {result.baseline} lost {share(there)}"
            said.append(
                f"* {name} was trained with text of {_listed(sorted(tax.touched))}: its tax is that of the untouched "
                f"targets ({_listed(tax.untouched)}){beside}."
            )
        elif tax.touched:
            said.append(f"{name} was trained with text of every target: none is untouched.")
        for measure, why in tax.undefined.items():
            if measure in ("tax", "delta_id"):
                what = {"tax": "the tax", "delta_id": "the gain at home"}[measure]
                said.append(f"{name}: {what} is undefined: {why}.")
    every = [caveat for result in results for caveat in caveats(result.tax)]
    return [*said, *dict.fromkeys(every)]


def points(estimate: Estimate | Undefined) -> str:
    """Write a change in points with its interval, such as `+18.8 (10.9 to 26.6)`."""
    if isinstance(estimate, Undefined):
        return "undefined"
    return f"{signed(estimate.value)} ({number(estimate.low)} to {number(estimate.high)})"


def share(estimate: Estimate | Undefined) -> str:
    """Write a fraction as percent with its interval, such as `61 % (54 to 68)`."""
    if isinstance(estimate, Undefined):
        return "undefined"
    value, low, high = (number(100 * x, 0) for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} % ({low} to {high})"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]

"""The text of a report: the summary line of each arm, the notes below, claims.

The page and the terminal show the same summary, so they cannot differ.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from gentax.core.console import visible
from gentax.metrics.claim_testing import ClaimOutcome, ClaimResult, RequiredSample
from gentax.metrics.statistics import LEVEL, SEEDS, Estimate, Undefined
from gentax.metrics.statistics.power import FREE_WITHIN
from gentax.metrics.verdict import Verdict, caveats, headline, number, signed, verdict
from gentax.report import ArmResult

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
            versus = "" if of_baseline is None else f"; there {result.baseline} lost {percent(of_baseline)}"
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
            estimate = _claim_estimate(one.estimate)
            if one.claim.right is not None:
                estimate = f"difference {estimate}"
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


def _claim_estimate(estimate: Estimate) -> str:
    scale, digits = (
        (100.0, 1) if estimate.unit == "fraction" else (1.0, 2 if estimate.unit == "points per point" else 1)
    )
    value, low, high = (number(scale * x, digits) for x in (estimate.value, estimate.low, estimate.high))
    return f"{value}{UNITS.get(estimate.unit, '')} ({low} to {high})"


def _what_it_takes(needed: RequiredSample, seeds: int) -> str:
    """Return the seeds and tasks that a claim would take."""
    assumed = " (their spread is assumed)" if needed.spread_assumed else ""
    more_seeds = f"{needed.seeds} seeds{assumed}" if needed.seeds else "over 100 seeds"
    tasks = f"{needed.tasks:,} tasks of each domain" if needed.tasks else "over a million tasks of each domain"
    return f"{more_seeds}, or {tasks} with {'this seed' if seeds == 1 else f'these {seeds} seeds'}"


def percent(estimate: Estimate | Undefined) -> str:
    """Write a fraction as percent with its interval, such as `61 % (54 to 68)`."""
    if isinstance(estimate, Undefined):
        return "undefined"
    value, low, high = (number(100 * x, 0) for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} % ({low} to {high})"


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

"""Sentences that say what the intervals allow and no more: the verdict first, then the evidence, each caveat once.

"Undecided" is an answer. With fewer than three training seeds, or a checkpoint whose seeds are unknown, sentences are
about that checkpoint; from three seeds on about training on a domain, since seeds differ by more than tasks do.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from gentax.metrics.arms import ArmReport
from gentax.metrics.episode_scores import unknown_content_caveat
from gentax.metrics.statistics import SEEDS, Estimate, Undefined
from gentax.metrics.statistics.power import FREE_WITHIN
from gentax.metrics.tax import TaxReport

MINUS = "\N{MINUS SIGN}"


class Verdict(StrEnum):
    """What the interval of a tax allows one to say."""

    COSTS = "costs"  # all of it above 0
    TRANSFERS = "transfers"  # all of it below 0
    FREE = "free"  # it contains 0, and all of it lies within ±free_within
    UNDECIDED = "undecided"


def verdict(tax: Estimate | Undefined, free_within: float = FREE_WITHIN) -> Verdict:
    """Return what `tax` (a fraction) allows one to say; undecided when it is undefined."""
    if isinstance(tax, Undefined):
        return Verdict.UNDECIDED
    if tax.low > 0:
        return Verdict.COSTS
    if tax.high < 0:
        return Verdict.TRANSFERS
    return Verdict.FREE if -free_within <= tax.low and tax.high <= free_within else Verdict.UNDECIDED


def headline(report: TaxReport) -> Estimate | Undefined:
    """Return the tax that the verdict is on: over the untouched targets where some are touched, over all otherwise."""
    return report.tax_untouched if report.touched and report.untouched else report.tax


def sentences(report: TaxReport) -> list[str]:
    """Return the verdict, then the source, the targets, the tax rate, and the caveats, a sentence each."""
    lines = [tax_sentence(report), source_sentence(report), *target_sentences(report)]
    lines += [rate_sentence(report), touched_sentence(report), chance_sentence(report), *caveats(report)]
    return [line for line in lines if line]


def tax_sentence(report: TaxReport) -> str:
    """Return the verdict and the tax it is on."""
    tax, source = headline(report), report.source
    some_touched = bool(report.touched and report.untouched)
    targets = report.untouched if some_touched else report.targets
    where = f"{len(targets)} {'untouched' if some_touched else 'other'} domain{'s' if len(targets) > 1 else ''}"
    if isinstance(tax, Undefined):
        return f"The tax of {source} is undefined: {tax.reason}."
    of_training = report.seeds >= SEEDS
    subject = "these two checkpoints" if report.seeds == 2 else "this checkpoint"
    subject, verb = (f"training on {source}", "costs") if of_training else (subject, "lost")
    interval = f"{_level(tax)} interval"
    decision = verdict(tax)
    if decision is Verdict.UNDECIDED:
        best = f"best estimate {_direction(tax.value, _percent)}"
        return (
            f"Undecided whether {subject} {verb} success on {where}: {_either_way(tax, _percent)} ({interval}; {best})."
        )
    if decision is Verdict.FREE:
        within = f"±{100 * FREE_WITHIN:g} % ({interval} {_either_way(tax, _percent)})"
        if of_training:
            return f"{_upper(subject)} is free: the tax on {where} lies within {within}."
        return f"{_upper(subject)} kept the success on {where} within {within}."
    size = tax if decision is Verdict.COSTS else tax.negated()
    share = f"{_percent(size.value)} ({interval} {_range(size, _percent)})"
    if decision is Verdict.COSTS:
        return f"{_upper(subject)} {verb} {share} of the success on {where}."
    if of_training:
        return f"{_upper(subject)} transfers: success on {where} rises by {share}."
    return f"{_upper(subject)} raised success on {where} by {share}."


def source_sentence(report: TaxReport) -> str:
    """Return what training did on the source itself."""
    gain = report.delta_id
    if isinstance(gain, Undefined):
        return f"The effect of training on {report.source} itself is unknown: {gain.reason}."
    loss = gain.negated()
    if gain.contains(0.0):
        best = _direction(loss.value, number)
        return f"On {report.source} itself: undecided, {_either_way(loss, number, ' points')} (best estimate {best})."
    return f"On {report.source} itself: {_loss_or_gain(loss, 'points ')}."


def target_sentences(report: TaxReport) -> list[str]:
    """Return the change on each target: a sentence on the significant ones, one on the others."""
    if len(report.targets) == 1:
        (drop,) = report.drop.values()
        return [f"On {report.targets[0]}: {_loss_or_gain(drop, 'points ')}."]
    significant = [t for t in report.targets if t in report.significant]
    others = [t for t in report.targets if t not in report.significant]
    corrected = f"corrected for {len(report.targets)} targets (Holm)"

    def listed(targets: list[str]) -> str:
        names = {t: f"{t} (touched)" if t in report.touched else t for t in targets}
        return "; ".join(f"{names[t]} {_loss_or_gain(report.drop[t], '')}" for t in targets)

    if not significant:
        return [f"No single target changed significantly, {corrected}. Uncorrected, in points: {listed(others)}."]
    lines = [f"Significant changes on targets, in points, {corrected}: {listed(significant)}."]
    return [*lines, f"Not significant, in points: {listed(others)}."] if others else lines


def rate_sentence(report: TaxReport) -> str:
    """Return the points lost on a target per point gained on the source; nothing where there is no gain."""
    rate = report.tax_rate
    if isinstance(rate, Undefined):
        return ""
    where = "on the average target"
    if report.delta_id and report.delta_id.value < 0:
        change = _loss_or_gain(rate.negated(), "points ", 2)
        return f"Training gained nothing: for each point lost on {report.source} itself, {change} {where}."
    if rate.contains(0.0):
        change = f"undecided, {_either_way(rate, lambda x: number(x, 2), ' points')}"
    else:
        change = _loss_or_gain(rate, "points ", 2)
    return f"For each point gained on {report.source}: {change} {where}."


def touched_sentence(report: TaxReport) -> str:
    """Return the tax on targets that entered training, separately; nothing where there are none."""
    if not report.touched:
        return ""
    names = ", ".join(sorted(report.touched))
    if not report.untouched:
        return f"Every target entered training ({names}): nothing is known of domains that did not."
    touched, total = report.tax_touched, report.tax
    size = f"undefined ({touched.reason})" if isinstance(touched, Undefined) else _share_lost(touched)
    over_all = "" if isinstance(total, Undefined) else f"; over all {len(report.targets)} targets {_share_lost(total)}"
    return f"On the touched targets, whose text or experts entered training ({names}): {size}{over_all}."


def chance_sentence(report: TaxReport) -> str:
    """Return the tax on the success above random play, and the domains where none of it is left."""
    if not report.above_chance:
        return ""
    tax = report.tax_above_chance
    if isinstance(tax, Undefined):
        sentence = f"The tax on success above random play is undefined: {tax.reason}."
    else:
        sentence = f"Of the success above random play: {_share_lost(tax)}."
    gone = [d for d, x in report.above_chance.items() if x.init and x.after and x.init.low > 0 >= x.after.low]
    return f"{sentence} No longer distinguishable from random play: {', '.join(gone)}." if gone else sentence


def caveats(report: TaxReport) -> list[str]:
    """Return what all of the numbers cover, the interim analysis they are from, and what was excluded."""
    tasks = sum(report.tasks.values())
    contents = sum(report.clusters.values()) or tasks
    over = f"{tasks:,} tasks" + (f" with {contents:,} distinct contents" if contents < tasks else "")
    seeds = f" and {report.seeds} training seeds" if report.seeds > 1 else ""
    line = f"All intervals are {100 * report.level:g} % confidence intervals over {over}{seeds}."
    if report.seeds < SEEDS:
        line += f" A claim about training takes {SEEDS} training seeds or more."
    lines = [line, unknown_content_caveat(report.unknown_content)]
    if report.analyses > 1:
        lines.append(
            f"Interim analysis {report.analysis} of at most {report.analyses}; the intervals are valid whenever one "
            "stops (repeated confidence intervals)."
        )
    excluded = {d: n for d, n in report.excluded_tasks.items() if n}
    if excluded:
        counts = ", ".join(f"{n} task{'s' if n > 1 else ''} of {d}" for d, n in sorted(excluded.items()))
        lines.append(f"Excluded because the environment failed: {counts}.{_bounds(report)}")
    return [line for line in lines if line]


def arm_sentence(arm: ArmReport, plain: str = "plain") -> str:
    """Return what an arm did to the tax of the plain one, and what it cost on the source."""
    of_training = arm.targets.seeds >= SEEDS
    removed = arm.tax_removed
    where = f" on the {len(arm.over)} untouched target{'s' if len(arm.over) > 1 else ''}" if arm.touched else ""
    if arm.touched and not arm.on_untouched:
        where = " on targets that all entered training"
    if isinstance(removed, Undefined):
        effect = f"on the targets {_loss_or_gain(arm.targets.negated(), 'points ')}{where}"
    elif removed.contains(0.0):
        low, high = _percent(-removed.low), _percent(removed.high)
        effect = f"undecided whether it removes any of the tax{where}, between {low} added and {high} removed"
    else:
        size = removed if removed.value > 0 else removed.negated()
        verb = ("removes" if of_training else "removed") if removed.value > 0 else ("adds" if of_training else "added")
        share = f"{_percent(size.value)} {'of' if removed.value > 0 else 'to'} the tax"
        effect = f"it {verb} {share}{where} ({_level(size)} interval {_range(size, _percent)})"
        if arm.targets_p >= 1 - removed.level and arm.arms > 1:
            effect += f", which is not significant when corrected for {arm.arms} arms (Holm)"
    if arm.touched and arm.on_untouched:
        touched = arm.touched_removed
        shown = f"{_percent(touched.value)} ({_range(touched, _percent)})" if touched else "undefined"
        effect += f"; on the touched ({', '.join(arm.touched)}) the share removed is {shown}"
    if arm.source:
        effect += f"; on the source {_loss_or_gain(arm.source.negated(), 'points ')}"
    return f"{arm.arm} compared with {plain}: {effect}."


def number(x: float, digits: int = 1) -> str:
    """Write `x` with a true minus sign, and never as minus zero.

    >>> number(-0.04), number(-2)
    ('0.0', '−2.0')
    """
    text = f"{x:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def signed(x: float, digits: int = 1) -> str:
    """Write `x` with its sign, `+` included; zero has none."""
    text = number(x, digits)
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def _loss_or_gain(loss: Estimate, unit: str, digits: int = 1) -> str:
    """Write a loss (positive) or a gain with its interval and without a sign."""
    return _with_direction(loss, lambda x: number(x, digits), unit)


def _share_lost(loss: Estimate) -> str:
    return _with_direction(loss, _percent, "")


def _with_direction(loss: Estimate, write: Callable[[float], str], unit: str) -> str:
    if loss.contains(0.0):
        return _either_way(loss, write, f" {unit}".rstrip())
    size = loss if loss.value > 0 else loss.negated()
    return f"{write(size.value)} {unit}{'lost' if loss.value > 0 else 'gained'} ({_range(size, write)})"


def _either_way(loss: Estimate, write: Callable[[float], str], unit: str = "") -> str:
    """Write the interval of a loss that contains 0."""
    return f"between {write(max(-loss.low, 0.0))}{unit} gained and {write(max(loss.high, 0.0))} lost"


def _direction(loss: float, write: Callable[[float], str]) -> str:
    return f"{write(abs(loss))} {'lost' if loss >= 0 else 'gained'}"


def _range(estimate: Estimate, write: Callable[[float], str]) -> str:
    return f"{write(estimate.low)} to {write(estimate.high)}"


def _bounds(report: TaxReport) -> str:
    if report.bounds is None or not report.bounds.best_case or not report.bounds.worst_case:
        return ""
    best, worst = (_direction(x.value, _percent) for x in (report.bounds.best_case, report.bounds.worst_case))
    return f" With all of them at their best or at their worst, the result would be {best} or {worst}."


def _level(estimate: Estimate) -> str:
    return f"{100 * estimate.level:g} %"


def _percent(fraction: float) -> str:
    return f"{number(100 * fraction, 0 if abs(fraction) >= 0.1 else 1)} %"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]

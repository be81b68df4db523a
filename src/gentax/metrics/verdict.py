"""Sentences that say what the numbers allow and no more: the verdict first, evidence after it, each caveat once.

"Undecided" is an answer. With one training seed, or a checkpoint whose seeds nobody knows of, sentences are about that
checkpoint; about training on a domain from three seeds on, since seeds differ by more than tasks do.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from gentax.metrics.arms import ArmReport
from gentax.metrics.episode_scores import content_caveat
from gentax.metrics.statistics import SEEDS, Estimate, Undefined
from gentax.metrics.statistics.power import FREE_WITHIN
from gentax.metrics.tax import TaxReport

MINUS = "\N{MINUS SIGN}"


class Verdict(StrEnum):
    """What the interval of a tax allows one to say."""

    COSTS = "costs"  # all of it above 0
    TRANSFERS = "transfers"  # all of it below 0
    FREE = "free"  # it holds 0, and all of it lies within ±free_within
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


def sentences(report: TaxReport, free_within: float = FREE_WITHIN) -> list[str]:
    """Say what training on the source did: the verdict, home, the targets, the price, and what to bear in mind."""
    said = [tax_sentence(report, free_within), own_sentence(report), *target_sentences(report), rate_sentence(report)]
    return [one for one in (*said, touched_sentence(report), chance_sentence(report), *caveats(report)) if one]


def tax_sentence(report: TaxReport, free_within: float = FREE_WITHIN) -> str:
    """Say the verdict and the tax it is on."""
    tax, source, plural = headline(report), report.source, report.seeds == 2
    targets = report.untouched if report.touched and report.untouched else report.targets
    other = "untouched" if report.touched and report.untouched else "other"
    where = f"{len(targets)} {other} domain{'s' if len(targets) > 1 else ''}"
    if isinstance(tax, Undefined):
        return f"The tax of {source} is undefined: {tax.reason}."
    of_training = report.seeds >= SEEDS
    who = "these two checkpoints" if plural else "this checkpoint"
    interval = f"{_level(tax)} interval "
    match verdict(tax, free_within):
        case Verdict.COSTS:
            share = f"{_percent(tax.value)} ({interval}{_range(tax, _percent)})"
            if of_training:
                return f"Training on {source} costs {share} of the success on {where}."
            return f"{_upper(who)} lost {share} of the success on {where}."
        case Verdict.TRANSFERS:
            gain = tax.mirrored()
            share = f"{_percent(gain.value)} ({interval}{_range(gain, _percent)})"
            if of_training:
                return f"Training on {source} transfers: success on {where} rises by {share}."
            return f"{_upper(who)} raised success on {where} by {share}."
        case Verdict.FREE:
            within = f"±{100 * free_within:g} % ({interval}{_between(tax, _percent)})"
            if of_training:
                return f"Training on {source} is free: the tax on {where} lies within {within}."
            return f"{_upper(who)} kept the success on {where} within {within}."
    whether = f"training on {source} costs" if of_training else f"{who} lost"
    return (
        f"Undecided whether {whether} success on {where}: {_between(tax, _percent)} ({_level(tax)} interval; "
        f"best guess {_way(tax.value, _percent)})."
    )


def own_sentence(report: TaxReport) -> str:
    """Say what training did on the source itself."""
    gain = report.delta_id
    if isinstance(gain, Undefined):
        return f"What training did on {report.source} itself is not known: {gain.reason}."
    lost = gain.mirrored()
    if gain.holds(0.0):
        best = _way(lost.value, number)
        return f"On {report.source} itself: undecided, {_between(lost, number, ' points')} (best guess {best})."
    return f"On {report.source} itself: {_moved(lost, 'points ')}."


def target_sentences(report: TaxReport) -> list[str]:
    """Say what was lost or gained on each target: a sentence on those that stand, one on those that are undecided."""
    if len(report.targets) == 1:
        (drop,) = report.drop.values()
        return [f"On {report.targets[0]}: {_moved(drop, 'points ')}."]
    stands = [t for t in report.targets if t in report.stands]
    rest = [t for t in report.targets if t not in report.stands]
    corrected = f"corrected for looking at {len(report.targets)} targets (Holm)"

    def listed(targets: list[str]) -> str:
        return "; ".join(f"{_name(report, t)} {_moved(report.drop[t], '')}" for t in targets)

    said = []
    if stands:
        said.append(f"Target by target, in points, {corrected}: {listed(stands)}.")
    if rest:
        where = "Undecided" if stands else f"Undecided on every target, {corrected}"
        said.append(f"{where}, in points: {listed(rest)}.")
    return said


def rate_sentence(report: TaxReport) -> str:
    """Say the price: points lost elsewhere per point gained at home. Nothing where there is no gain to divide by."""
    rate = report.tax_rate
    if isinstance(rate, Undefined):
        return ""
    if report.delta_id and report.delta_id.value < 0:
        moved = _moved(rate.mirrored(), "points ", 2)
        return f"For each point lost on {report.source} itself {moved} on a target: nothing was bought."
    if rate.holds(0.0):
        between = _between(rate, lambda x: number(x, 2), " points")
        return f"For each point gained on {report.source}: undecided, {between} on a target."
    return f"For each point gained on {report.source} {_moved(rate, 'points ', 2)} on a target."


def touched_sentence(report: TaxReport) -> str:
    """Say the tax on targets that entered training, apart; nothing where there are none."""
    if not report.touched:
        return ""
    names = ", ".join(sorted(report.touched))
    if not report.untouched:
        return f"Every target entered training ({names}): nothing is known of domains that did not."
    touched, all_of = report.tax_touched, report.tax
    apart = f"undefined ({touched.reason})" if isinstance(touched, Undefined) else _moved(touched, "", percent=True)
    whole = (
        "" if isinstance(all_of, Undefined) else f"; over all {len(report.targets)} {_moved(all_of, '', percent=True)}"
    )
    return f"On the touched targets, whose text or experts entered training ({names}): {apart}{whole}."


def chance_sentence(report: TaxReport) -> str:
    """Say the tax on what success lies above random play's, and where nothing is left of it."""
    if not report.above_chance:
        return ""
    tax = report.tax_above_chance
    if isinstance(tax, Undefined):
        said = f"The tax on success above chance is undefined: {tax.reason}."
    else:
        said = f"Of the success above random play's: {_moved(tax, '', percent=True)}."
    gone = [
        domain
        for domain, one in report.above_chance.items()
        if one.init and one.after and one.init.low > 0 >= one.after.low
    ]
    return f"{said} No longer told apart from random play: {', '.join(gone)}." if gone else said


def caveats(report: TaxReport) -> list[str]:
    """Say once what all of the numbers cover, which look this is, and what was left out."""
    tasks = sum(report.tasks.values())
    contents = sum(report.clusters.values()) or tasks
    over = f"{tasks:,} tasks" + (f" of {contents:,} different contents" if contents < tasks else "")
    level = f"Intervals hold the truth with {100 * report.level:g} %"
    if report.seeds >= SEEDS:
        said = [f"{level}, over {over} and {report.seeds} training seeds."]
    else:
        seeds = " and 2 training seeds" if report.seeds == 2 else ""
        said = [f"{level}, over {over}{seeds}. What is said of training takes {SEEDS} training seeds or more."]
    if report.content_unknown:
        said.append(content_caveat(report.content_unknown))
    if report.looks > 1:
        said.append(
            f"Look {report.look} of at most {report.looks}; the intervals are valid at whichever look one stops "
            "(repeated confidence intervals)."
        )
    broken = {d: n for d, n in report.left_out.items() if n}
    if broken:
        parts = ", ".join(f"{n} on {d}" for d, n in sorted(broken.items()))
        said.append(f"Left out because the environment broke: {parts} (tasks).{_bounds(report)}")
    return said


def arm_sentence(arm: ArmReport, plain: str = "plain") -> str:
    """Say what an arm did to the tax of the plain one, and what it cost at home."""
    of_training = arm.targets.seeds >= SEEDS
    removed = arm.tax_removed
    where = f" on the {len(arm.over)} untouched target{'s' if len(arm.over) > 1 else ''}" if arm.touched else ""
    if arm.touched and not arm.on_untouched:
        where = " on targets that all entered training"
    if isinstance(removed, Undefined):
        said = f"on the targets {_moved(arm.targets.mirrored(), 'points ')}{where.removeprefix(' on the targets')}"
    elif removed.holds(0.0):
        low, high = _percent(-removed.low), _percent(removed.high)
        said = f"undecided whether it removes any of the tax{where}, between {low} added and {high} removed"
    else:
        size = removed if removed.value > 0 else removed.mirrored()
        verb = ("removes" if of_training else "removed") if removed.value > 0 else ("adds" if of_training else "added")
        share = f"{_percent(size.value)} {'of' if removed.value > 0 else 'to'} the tax"
        said = f"it {verb} {share}{where} ({_level(size)} interval {_range(size, _percent)})"
        if arm.targets_p >= 1 - removed.level and arm.arms > 1:
            said += f", which does not stand when corrected for {arm.arms} arms (Holm)"
    apart = ""
    if arm.touched and arm.on_untouched:
        beside = arm.touched_removed
        size = (
            "undefined" if isinstance(beside, Undefined) else f"{_percent(beside.value)} ({_range(beside, _percent)})"
        )
        apart = f"; on the touched ({', '.join(arm.touched)}) the share removed is {size}"
    home = f"; at home {_moved(arm.source.mirrored(), 'points ')}" if arm.source else ""
    return f"{arm.arm} beside {plain}: {said}{apart}{home}."


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


def _moved(lost: Estimate, unit: str, digits: int = 1, percent: bool = False) -> str:
    """Say a loss, positive, or a gain, with its interval and without a sign."""

    def write(x: float) -> str:
        return _percent(x) if percent else number(x, digits)

    if lost.holds(0.0):
        return _between(lost, write, f" {unit}".rstrip())
    size = lost if lost.value > 0 else lost.mirrored()
    return f"{write(size.value)} {unit}{'lost' if lost.value > 0 else 'gained'} ({_range(size, write)})"


def _between(lost: Estimate, write: Callable[[float], str], unit: str = "") -> str:
    """Say an interval of a loss that holds 0."""
    return f"between {write(max(-lost.low, 0.0))}{unit} gained and {write(max(lost.high, 0.0))} lost"


def _way(lost: float, write: Callable[[float], str]) -> str:
    return f"{write(abs(lost))} {'lost' if lost >= 0 else 'gained'}"


def _range(estimate: Estimate, write: Callable[[float], str]) -> str:
    return f"{write(estimate.low)} to {write(estimate.high)}"


def _name(report: TaxReport, target: str) -> str:
    return f"{target} (touched)" if target in report.touched else target


def _bounds(report: TaxReport) -> str:
    if report.bounds is None:
        return ""
    least, most = report.bounds.least, report.bounds.most
    if isinstance(least, Undefined) or isinstance(most, Undefined):
        return ""
    ways = f"{_way(least.value, _percent)} or {_way(most.value, _percent)}"
    return f" Decided the best or the worst way they make the tax {ways}."


def _level(estimate: Estimate) -> str:
    return f"{100 * estimate.level:g} %"


def _percent(fraction: float) -> str:
    return f"{number(100 * fraction, 0 if abs(fraction) >= 0.1 else 1)} %"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]

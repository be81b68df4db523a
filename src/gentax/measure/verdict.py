"""Sentences that say what the numbers allow and no more. "Undecided" is an answer."""

from __future__ import annotations

from enum import StrEnum

from gentax.measure.arms import ArmReport
from gentax.measure.statistics import Estimate, Undefined
from gentax.measure.tax import TaxReport

MINUS = "\N{MINUS SIGN}"
FREE_WITHIN = 0.05  # a tax whose whole interval is this near 0 is called free


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


def sentences(report: TaxReport, free_within: float = FREE_WITHIN) -> list[str]:
    """Say what training on the source did: the tax, the source itself, each target, the price, what was left out."""
    said = [tax_sentence(report, free_within), own_sentence(report)]
    said += [target_sentence(report, target) for target in report.targets]
    said.append(rate_sentence(report))
    if report.looks > 1:
        said.append(
            f"Look {report.look} of at most {report.looks}; the intervals are valid at whichever look one stops "
            "(repeated confidence intervals)."
        )
    broken = {d: n for d, n in report.left_out.items() if n}
    if broken:
        parts = ", ".join(f"{n} on {d}" for d, n in sorted(broken.items()))
        said.append(f"Left out because the environment broke: {parts} (tasks).")
    return said


def tax_sentence(report: TaxReport, free_within: float = FREE_WITHIN) -> str:
    """Say the tax and the verdict on it."""
    tax = report.tax
    where = f"{len(report.targets)} other domain{'s' if len(report.targets) > 1 else ''}"
    if isinstance(tax, Undefined):
        return f"The tax of {report.source} is undefined: {tax.reason}."
    size = _share(tax)
    match verdict(tax, free_within):
        case Verdict.COSTS:
            return f"Training on {report.source} costs: of the success on {where} it lost {size}."
        case Verdict.TRANSFERS:
            return f"Training on {report.source} transfers: on {where} success rose by {_share(tax.mirrored())}."
        case Verdict.FREE:
            interval = f"{_level(tax)} interval {_percent(tax.low)} to {_percent(tax.high)}, {_covers(tax)}"
            within = f"{100 * free_within:g} %"
            share = f"the tax is {_percent(tax.value)} ({interval})"
            return f"Training on {report.source} is free within ±{within}: {share}."
    low = f"a gain of {_percent(-tax.low)}" if tax.low < 0 else f"a loss of {_percent(tax.low)}"
    high = f"a loss of {_percent(tax.high)}" if tax.high > 0 else "none"
    return (
        f"Undecided whether training on {report.source} costs: on {where} the data allow everything from {low} to "
        f"{high} (best guess {_percent(abs(tax.value))} {'lost' if tax.value >= 0 else 'gained'}; {_covers(tax)})."
    )


def own_sentence(report: TaxReport) -> str:
    """Say what training did on the source itself."""
    gain = report.delta_id
    if isinstance(gain, Undefined):
        return f"What training did on {report.source} itself is not known: {gain.reason}."
    if gain.holds(0.0):
        change = f"{signed(gain.value)} points ({_interval(gain, signs=True)}, {_covers(gain)})"
        return f"Undecided whether training on {report.source} changed its own test success: {change}."
    verb, size = ("raised", gain) if gain.value > 0 else ("lowered", gain.mirrored())
    points = f"{number(size.value)} points ({_interval(size)}, {_covers(gain)})"
    return f"Training on {report.source} {verb} its own test success by {points}."


def target_sentence(report: TaxReport, target: str) -> str:
    """Say what was lost or gained on one target."""
    drop = report.drop[target]
    if drop.holds(0.0):
        low, high = number(max(-drop.low, 0.0)), number(max(drop.high, 0.0))
        return f"On {target}: undecided, between {low} points gained and {high} lost (best guess {_lost(drop.value)})."
    verb, size = ("lost", drop) if drop.value > 0 else ("gained", drop.mirrored())
    said = f"On {target} it {verb} {number(size.value)} points ({_interval(size)}, over {drop.n} tasks"
    if len(report.targets) == 1:
        return f"{said})."
    if target in report.stands:
        return f"{said}; it stands when corrected for looking at {len(report.targets)} targets)."
    return f"{said}), but one of {len(report.targets)} targets may well show as much by chance."


def rate_sentence(report: TaxReport) -> str:
    """Say the price: points lost elsewhere per point gained at home."""
    rate = report.tax_rate
    if isinstance(rate, Undefined):
        return f"The tax rate (points lost elsewhere per point gained at home) is {rate}."
    interval = _interval(rate, digits=2)
    if report.delta_id and report.delta_id.value < 0:
        return f"The tax rate is {number(rate.value, 2)} ({interval}), but of a loss at home: nothing was bought."
    if rate.holds(0.0):
        return f"Undecided whether a point gained at home costs any elsewhere: {number(rate.value, 2)} ({interval})."
    verb = "costs" if rate.value > 0 else "brings"
    shown = rate if rate.value > 0 else rate.mirrored()
    interval = _interval(shown, digits=2)
    return f"Each point gained on {report.source} {verb} {number(shown.value, 2)} points on a target ({interval})."


def arm_sentence(arm: ArmReport, plain: str = "plain") -> str:
    """Say what an arm did to the tax of the plain one, and what it cost at home."""
    removed, home = arm.tax_removed, arm.source
    if isinstance(removed, Undefined):
        said = f"{signed(arm.targets.value)} points on the targets ({_interval(arm.targets, signs=True)})"
    elif removed.holds(0.0):
        limits = f"{_percent(removed.low)} to {_percent(removed.high)}"
        said = f"undecided whether it removes any of the tax ({_level(removed)} interval {limits})"
    else:
        more = removed.value < 0
        size = removed.mirrored() if more else removed
        limits = f"{_percent(size.low)} to {_percent(size.high)}"
        share = f"{_percent(size.value)} {'to' if more else 'of'} the tax ({_level(size)} interval {limits})"
        said = f"it {'adds' if more else 'removes'} {share}"
    own = f", at home {signed(home.value)} points ({_interval(home, signs=True)})" if home else ""
    return f"Beside {plain}: {said}{own}; {_covers(arm.targets)}."


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


def _interval(estimate: Estimate, signs: bool = False, digits: int = 1) -> str:
    write = signed if signs else number
    return f"{_level(estimate)} interval {write(estimate.low, digits)} to {write(estimate.high, digits)}"


def _share(tax: Estimate) -> str:
    limits = f"{_level(tax)} interval {_percent(tax.low)} to {_percent(tax.high)}"
    return f"{_percent(tax.value)} ({limits}, {_covers(tax)})"


def _level(estimate: Estimate) -> str:
    return f"{100 * estimate.level:g} %"


def _covers(estimate: Estimate) -> str:
    if estimate.seeds > 1:
        return f"over {estimate.n} tasks and {estimate.seeds} training seeds"
    return f"over {estimate.n} tasks; one training seed: the interval covers tasks only"


def _lost(drop: float) -> str:
    return f"{number(drop)} lost" if drop >= 0 else f"{number(-drop)} gained"


def _percent(fraction: float) -> str:
    return f"{number(100 * fraction, 0 if abs(fraction) >= 0.1 else 1)} %"

"""The two or three changes that say most, in sentences that allow for how many changes were looked at.

Among dozens of changes some are told apart from 0 by luck. Holm's (1979) correction over all that were looked at, on
every domain, keeps the chance of even one such sentence at 5 %, whatever hangs together with what. The intervals in
the sentences are the plain 95 % ones. Success is not among the changes: it is what the tax is about.
"""

from __future__ import annotations

from collections.abc import Mapping

from gentax.measure import statistics
from gentax.measure.behaviour.changes import Comparison
from gentax.measure.behaviour.counts import MEASURES
from gentax.measure.behaviour.parting import Parting
from gentax.measure.behaviour.ratios import p_value
from gentax.measure.statistics import LEVEL, Estimate
from gentax.measure.verdict import number, signed

Key = tuple[str, str]  # domain, measure


def holm(compared: Mapping[str, Comparison]) -> dict[Key, float]:
    """Return the p-value of each change, corrected for looking at all of them (Holm 1979), the smallest first."""
    plain = {
        (domain, name): p_value(value)
        for domain, comparison in compared.items()
        for name, value in comparison.change.items()
        if value is not None and name != "success"
    }
    return statistics.holm({key: plain[key] for key in sorted(plain, key=lambda key: (plain[key], key))})


def sentences(
    compared: Mapping[str, Comparison], parted: Mapping[str, Parting] | None = None, most: int = 3
) -> list[str]:
    """Say at most `most` changes that stand after Holm's correction, one of a kind a domain, and how many were tried.

    With `parted`, also say of each of the domains named where the two policies part.
    """
    corrected = holm(compared)
    standing = [key for key, p in corrected.items() if p < 1 - LEVEL]
    told: dict[tuple[str, str], Key] = {}
    for domain, name in standing:
        told.setdefault((domain, MEASURES[name].kind), (domain, name))
    chosen = list(told.values())[:most]
    said = [_change(compared[domain], name) for domain, name in chosen]
    tried = f"{len(corrected)} changes of behaviour looked at"
    if not standing:
        said.append(f"Of {tried}, none is told apart from 0 once that number is allowed for (Holm).")
    else:
        verb = "is" if len(standing) == 1 else "are"
        said.append(f"Of {tried}, {len(standing)} {verb} told apart from 0 with that number allowed for (Holm).")
    for domain in dict.fromkeys(domain for domain, _ in chosen) or compared:
        if parted and domain in parted:
            said.append(parting_sentence(parted[domain]))
    return said


def parting_sentence(parting: Parting) -> str:
    """Say how many pairs part and by which step half of them have."""
    share, curve = parting.parted, parting.curve
    if share is None or share.value == 0:
        return f"On {parting.domain} the two policies did the same in all {parting.pairs} pairs of episodes."
    size = f"{number(share.value, 0)} % of {parting.pairs} pairs of episodes ({_limits(share, 0)})"
    until = "never" if curve.median_high is None else str(curve.median_high)
    step = f"of those still going half have parted by step {curve.median} ({curve.median_low} to {until})"
    if curve.median is None:
        step = "of those still going more than half stay together"
    return f"On {parting.domain} the two policies part in {size}; {step}."


def _change(comparison: Comparison, name: str) -> str:
    measure, change = MEASURES[name], comparison.change[name]
    before, after = (number(side.values[name].value) for side in (comparison.before, comparison.after))
    unit = " %" if measure.share else f" {measure.unit}"
    moved = "points" if measure.share else measure.unit
    return (
        f"On {comparison.before.domain}, {_SUBJECT[name]} went from {before} to {after}{unit}: "
        f"{signed(change.value)} {moved} ({_limits(change, 1, signs=True)}, over {change.n} tasks)."
    )


def _limits(value: Estimate, digits: int, signs: bool = False) -> str:
    write = signed if signs else number
    return f"95 % interval {write(value.low, digits)} to {write(value.high, digits)}"


_SUBJECT = {
    "ended_early": "episodes that failed before they were out of steps",
    "gave_up": "episodes that gave up",
    "ran_out": "episodes that ran out of steps still trying",
    "loop": "episodes that ended in a loop",
    "invalid": "invalid actions",
    "unreadable": "replies without an action",
    "truncated": "replies that were cut off",
    "repeated": "actions repeated though nothing had changed",
    "redone": "actions done before in the same state",
    "back": "actions that led back to a state seen before",
    "steps_per_success": "steps per success",
    "length_given_success": "the length of a success",
    "tokens_per_success": "tokens per success",
    "tokens_per_step": "tokens per step",
}

"""The largest changes of behaviour in sentences, corrected for how many changes were tested.

Among dozens of changes some are significant by chance. Holm's (1979) correction over all that were tested, on every
domain, keeps the chance of even one false sentence at 5 %, however the measures are correlated. The intervals in the
sentences are the plain 95 % ones. Success is not among the changes: it is what the tax is about.
"""

from __future__ import annotations

from collections.abc import Mapping

from gentax.metrics import statistics
from gentax.metrics.behaviour.changes import Behaviour, Comparison
from gentax.metrics.behaviour.counts import MEASURES
from gentax.metrics.behaviour.parting import Parting
from gentax.metrics.behaviour.ratios import p_value
from gentax.metrics.statistics import LEVEL, Estimate
from gentax.metrics.verdict import number, signed

Key = tuple[str, str]  # domain, measure
ENDS = ("ended_early", "gave_up", "ran_out")  # of episodes that fail


def holm(compared: Mapping[str, Comparison]) -> dict[Key, float]:
    """Return the p-value of each change, corrected for testing all of them (Holm 1979), the smallest first.

    A change whose interval has no width (see `ratios.estimate`) is not tested.
    """
    plain = {
        (domain, name): p_value(value)
        for domain, comparison in compared.items()
        for name, value in comparison.change.items()
        if value is not None and name != "success" and value.low < value.high
    }
    return statistics.holm({key: plain[key] for key in sorted(plain, key=lambda key: (plain[key], key))})


def sentences(
    compared: Mapping[str, Comparison], parted: Mapping[str, Parting] | None = None, most: int = 3
) -> list[str]:
    """Say at most `most` changes that are significant after Holm's correction, the largest first.

    One of each kind a domain, and how many were tested. With `parted`, also say of each of the domains named where the
    two policies diverge.
    """
    corrected = holm(compared)
    standing = [key for key, p in corrected.items() if p < 1 - LEVEL]
    standing.sort(key=lambda key: -_size(compared[key[0]], key[1]))
    told: dict[tuple[str, str], Key] = {}
    for domain, name in standing:
        told.setdefault((domain, MEASURES[name].kind), (domain, name))
    chosen = list(told.values())[:most]
    said = [_change(compared[domain], name) for domain, name in chosen]
    tested = f"of {len(corrected)} changes tested" if len(corrected) != 1 else "of 1 change tested"
    if not standing:
        said.append(f"No change of behaviour is significant, {tested} (Holm's correction).")
    else:
        verb = "is" if len(standing) == 1 else "are"
        said.append(f"{len(standing)} {tested} {verb} significant (Holm's correction).")
    for domain in dict.fromkeys(domain for domain, _ in chosen) or compared:
        if parted and domain in parted:
            said.append(parting_sentence(parted[domain]))
    return said


def parting_sentence(parting: Parting) -> str:
    """Say how many paired episodes diverge, and by which step half of them have."""
    share, curve = parting.parted, parting.curve
    if share is None or share.value == 0:
        return f"On {parting.domain} both policies take the same actions in all {parting.pairs} paired episodes."
    size = f"{number(share.value, 0)} % of {parting.pairs} paired episodes ({_limits(share, 0)})"
    until = "never" if curve.median_high is None else str(curve.median_high)
    step = f", half of them by step {curve.median} ({curve.median_low} to {until})" if curve.median is not None else ""
    return f"On {parting.domain} the policies' actions diverge in {size}{step}."


def end_sentence(one: Behaviour) -> str:
    """Say how often a policy succeeds on a domain, and how it fails most often."""
    values = {name: value.value for name, value in one.values.items() if value is not None}
    said = f"On {one.domain}, {number(values['success'], 0)} % of {one.episodes} episodes succeed"
    worst = max(ENDS, key=lambda name: values[name])
    if values[worst] == 0:
        return f"{said}."
    return f"{said}; most failures are {_SUBJECT[worst]} ({number(values[worst], 0)} % of all)."


def _size(comparison: Comparison, name: str) -> float:
    """Return how large a change is: points of a share, percent of what a cost was before."""
    change, before = comparison.change[name], comparison.before.values[name]
    assert change is not None
    assert before is not None
    if MEASURES[name].share or not before.value:
        return abs(change.value)
    return 100 * abs(change.value / before.value)


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

"""Episodes written by hand for the tests of behaviour."""

from __future__ import annotations

from gentax.core import Episode, Outcome, Step, Task


def played(index, *moves, won=False, sample=0, written=3, domain="room", start="A", broke=False):
    """An episode from moves written `action>observation after it`; an action that ends in `!` is refused."""
    now, steps = start, []
    for move in moves:
        action, _, after = move.partition(">")
        valid = not action.endswith("!")
        steps.append(Step(now, action, action.rstrip("!"), 0.0, valid, written=written))
        now = after or ("No." if not valid else now)
    outcome = Outcome.ERROR if broke else Outcome.SUCCESS if won else Outcome.FAILURE
    return Episode(Task(domain, "small", "test", index), sample, "Get out.", tuple(steps), outcome, now)

"""Which episodes a page shows: of each kind of change the first, so that nobody chose them for what they say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gentax.core import Episode, Outcome
from gentax.report.model import EpisodePair


def telling_pairs(before: Sequence[Episode], after: Iterable[Episode], arm: str = "") -> list[EpisodePair]:
    """Return, of one domain, the first pair that was lost, the first gained, and the first solved or failed twice.

    Args:
        before: the episodes before training.
        after: those after it, on the same tasks in the same order.
        arm: whose training lies between them.
    """
    found: dict[tuple[bool, bool], EpisodePair] = {}
    for one, other in zip(before, after, strict=True):
        if Outcome.ERROR not in (one.outcome, other.outcome):
            found.setdefault((one.success, other.success), EpisodePair(one, other, arm=arm))
    order = [(True, False), (False, True), (True, True), (False, False)]
    return [found[change] for change in order if change in found]

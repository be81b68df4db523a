"""What happened in episodes: invalid and repeated actions, loops, giving up, cost of a success, where policies diverge.

`behaviour` reads the episodes of one policy, `compare` those of two that played the same tasks, `partings` finds the
step at which the two diverge, and `sentences` says the largest changes. Left out: why. These are counts of what was
done.
"""

from gentax.metrics.behaviour.changes import Behaviour, Comparison, behaviour, compare
from gentax.metrics.behaviour.counts import MEASURES, Measure
from gentax.metrics.behaviour.parting import Parting, partings
from gentax.metrics.behaviour.words import end_sentence, holm, parting_sentence, sentences

__all__ = [
    "MEASURES",
    "Behaviour",
    "Comparison",
    "Measure",
    "Parting",
    "behaviour",
    "compare",
    "end_sentence",
    "holm",
    "parting_sentence",
    "partings",
    "sentences",
]

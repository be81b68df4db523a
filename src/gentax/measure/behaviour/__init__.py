"""What happened in the episodes: what was refused, done again or given up, what a success cost, where policies part.

`behaviour` reads the episodes of one policy, `compare` those of two that played the same tasks, `partings` says where
the two part ways, and `sentences` which changes say most. What is left out: why. These are counts of what was done.
"""

from gentax.measure.behaviour.changes import Behaviour, Comparison, behaviour, compare
from gentax.measure.behaviour.counts import MEASURES, Measure
from gentax.measure.behaviour.parting import Parting, partings
from gentax.measure.behaviour.words import holm, parting_sentence, sentences

__all__ = [
    "MEASURES",
    "Behaviour",
    "Comparison",
    "Measure",
    "Parting",
    "behaviour",
    "compare",
    "holm",
    "parting_sentence",
    "partings",
    "sentences",
]

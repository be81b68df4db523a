"""Statistics: pure functions from scores of policies on tasks to numbers with intervals.

Nothing here knows of episodes, domains or models: arrays go in, (S, D, K) seeds by domains by tasks where a whole study
is meant, and `Estimate`s come out. `intervals` has the method that every interval of gentax follows, and why it
covers; `bootstrap` what needs resampling; `many` the correction when many things are looked at; `sequential` looking
more than once; `power` how many episodes it takes.
"""

from gentax.metrics.statistics.bootstrap import iqm, probability_of_improvement, resampled
from gentax.metrics.statistics.estimate import LEVEL, SEEDS_AND_TASKS, TASKS, Estimate, Undefined
from gentax.metrics.statistics.intervals import (
    above_chance,
    above_chance_tax,
    bounded_mean,
    cluster_mean,
    difference,
    linear,
    p_value,
    ratio,
    share,
    success_rate,
)
from gentax.metrics.statistics.multiple_testing import InterimAnalyses, holm
from gentax.metrics.statistics.power import (
    SEEDS,
    Pilot,
    Plan,
    detectable,
    detectable_of_training,
    episodes_needed,
    few_seeds,
    free_within,
    pilot_of,
    seeds_needed,
)
from gentax.metrics.statistics.scores import Clusters, Labels, Scores, Weights

__all__ = [
    "LEVEL",
    "SEEDS",
    "SEEDS_AND_TASKS",
    "TASKS",
    "Clusters",
    "Estimate",
    "InterimAnalyses",
    "Labels",
    "Pilot",
    "Plan",
    "Scores",
    "Undefined",
    "Weights",
    "above_chance",
    "above_chance_tax",
    "bounded_mean",
    "cluster_mean",
    "detectable",
    "detectable_of_training",
    "difference",
    "episodes_needed",
    "few_seeds",
    "free_within",
    "holm",
    "iqm",
    "linear",
    "p_value",
    "pilot_of",
    "probability_of_improvement",
    "ratio",
    "resampled",
    "seeds_needed",
    "share",
    "success_rate",
]

"""Statistics: pure functions from scores of policies on tasks to numbers with intervals.

Nothing here knows of episodes, domains or models: arrays go in, (S, D, K) seeds by domains by tasks where a whole study
is meant, and `Estimate`s come out. `intervals` has the method that every interval of gentax follows, `scores` why it
covers; `multiple_testing` corrections for several targets and several interim analyses; `power` sample sizes and
minimum detectable effects.
"""

from gentax.metrics.statistics.intervals import (
    above_chance,
    above_chance_tax,
    bounded_mean,
    cluster_mean,
    difference,
    iqm,
    linear_combination,
    p_value,
    probability_of_improvement,
    ratio,
    success_rate,
)  # fmt: skip
from gentax.metrics.statistics.multiple_testing import InterimAnalyses, group_sequential_holm, holm
from gentax.metrics.statistics.power import (
    SEEDS,
    Pilot,
    estimate_pilot,
    few_seeds_caveat,
    free_within,
    minimum_detectable_drop,
    minimum_detectable_drop_of_training,
    power_sentences,
    required_sample_size,
    required_seeds,
    required_tasks,
)  # fmt: skip
from gentax.metrics.statistics.scores import (
    LEVEL,
    SEEDS_AND_TASKS,
    TASKS,
    Estimate,
    Labels,
    Scores,
    TaskClusters,
    Undefined,
    Weights,
)  # fmt: skip

__all__ = [
    "LEVEL", "SEEDS", "SEEDS_AND_TASKS", "TASKS", "Estimate", "InterimAnalyses", "Labels", "Pilot",
    "Scores", "TaskClusters", "Undefined", "Weights", "above_chance", "above_chance_tax", "bounded_mean",
    "cluster_mean", "difference", "estimate_pilot", "few_seeds_caveat", "free_within", "group_sequential_holm",
    "holm", "iqm", "linear_combination", "minimum_detectable_drop", "minimum_detectable_drop_of_training",
    "p_value", "power_sentences", "probability_of_improvement", "ratio", "required_sample_size",
    "required_seeds", "required_tasks", "success_rate",
]  # fmt: skip

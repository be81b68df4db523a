"""The tax before it is paid: from where a source lies on the axes, or from how far training has moved the policy.

A forecast rests on runs whose tax was measured, a handful of domains; it is honest about that: its error is what
leaving each domain out in turn shows, and with too few domains it says so and gives no number.
"""

from gentax.metrics.forecast.advise import Advice, advise
from gentax.metrics.forecast.fit import Fit, Forecast, read_fit
from gentax.metrics.forecast.training_runs import FEATURES, Seen

__all__ = [
    "FEATURES",
    "Advice",
    "Fit",
    "Forecast",
    "Seen",
    "advise",
    "read_fit",
]

"""The tax before it is paid: from where a source lies on the axes, or from how far training has moved the policy.

A forecast rests on runs whose tax was measured, a handful of domains; it is honest about that: its error is what
leaving each domain out in turn shows, and with too few domains it says so and gives no number.
"""

from gentax.measure.forecast.advise import Advice, advise
from gentax.measure.forecast.fit import Fit, Forecast, read_fit
from gentax.measure.forecast.moved import MovedForecast, forecast_of
from gentax.measure.forecast.seen import FEATURES, Seen

__all__ = [
    "FEATURES",
    "Advice",
    "Fit",
    "Forecast",
    "MovedForecast",
    "Seen",
    "advise",
    "forecast_of",
    "read_fit",
]

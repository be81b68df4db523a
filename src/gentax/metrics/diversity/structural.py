"""Diversity of where two domains lie on the axes, from the axes alone."""

from __future__ import annotations

import math

from gentax.core import UsageError
from gentax.metrics.axes import Axes
from gentax.metrics.statistics import TASKS, Estimate


def structural(a: Axes, b: Axes) -> Estimate:
    """Return the distance of two domains on the axes: √(Δ log₁₀ richness² + (Δ planning / horizon)²).

    Richness is the mean characters of the bare observation. So 1 is ten times the text, or the whole way from domains
    solved at once to domains never solved: a scale that is fixed, where one standardised by the spread of a list of
    domains would move with the list. The interval takes the four means as independent (delta method).

    Raises:
        UsageError: axes counted to different horizons, or a domain that shows no text.
    """
    if a.horizon != b.horizon:
        raise UsageError(f"{a.domain} and {b.domain} were measured to the horizons {a.horizon} and {b.horizon}")
    for one in (a, b):
        if one.observation_characters.value <= 0:
            raise UsageError(f"diversity compares text, and the observations of {one.domain} hold none")
    richness = [one.observation_characters for one in (a, b)]
    wide = math.log10(richness[0].value / richness[1].value)
    deep = (a.planning.value - b.planning.value) / a.horizon
    margin_wide = math.hypot(*(_half(one) / one.value / math.log(10) for one in richness))
    margin_deep = math.hypot(*(_half(one.planning) / a.horizon for one in (a, b)))
    value = math.hypot(wide, deep)
    # Where the two lie at one place, no direction is singled out, and the larger margin holds.
    half = math.hypot(wide * margin_wide, deep * margin_deep) / value if value else max(margin_wide, margin_deep)
    tasks = a.planning.n + b.planning.n
    return Estimate(value, max(value - half, 0.0), value + half, TASKS, "distance", tasks)


def _half(estimate: Estimate) -> float:
    return (estimate.high - estimate.low) / 2

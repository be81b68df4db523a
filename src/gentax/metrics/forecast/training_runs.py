"""What a forecast learns from: training runs whose tax was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gentax.core import UsageError
from gentax.metrics.axes import Probe

FEATURES = {  # name -> what it is; in the order in which few domains can afford them
    "richness": "log2 of the characters of a state's prompt",
    "planning": "mean trajectory length over the horizon, failures at the horizon",
    "diversity": "share of the targets' words and word pairs that the source never shows, mean over targets",
    "kl": "forward KL from base to tuned on the source's states, nats per action",
}
AXES = ("richness", "planning", "diversity")  # known before training
MOVED = ("kl",)  # known after it


@dataclass(frozen=True)
class Seen:
    """RL on `source` under one arm: what was known of it, and what it cost. Means over training seeds."""

    source: str
    arm: str
    steps: int  # of training
    seeds: int
    features: Mapping[str, float]  # of FEATURES; those that are not known are missing
    tax: float  # fraction
    tax_low: float  # its 95 % interval
    tax_high: float
    delta_id: float  # points

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Seen:
        """Read what `to_json` made. Raises UsageError for anything else, numbers that are not finite included."""
        try:
            row = cls(**values)
            for name in ("tax", "tax_low", "tax_high", "delta_id"):
                _number(name, getattr(row, name), 1e6)
            for name, value in row.features.items():
                _number(name, value, 1e6)
            for name in ("steps", "seeds"):
                if not isinstance(getattr(row, name), int) or not 0 < getattr(row, name) < 1e9:
                    raise ValueError(f"{name} must be a whole number above 0")
            if not isinstance(row.source, str) or not isinstance(row.arm, str):
                raise ValueError("source and arm must be text")
        except (TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"this is no row of a forecast: {error}") from None
        return row


def _number(name: str, value: object, limit: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= limit:
        raise ValueError(f"{name} must be a finite number")


def features_of(probe: Probe, unseen: float | None = None) -> dict[str, float]:
    """Return what a probe says of a candidate source.

    Args:
        probe: of the domain, as `gentax probe` makes it.
        unseen: mean over targets of the `unseen` measure of diversity, source to target.

    Raises:
        UsageError: a probe without prompts.
    """
    axes = probe.axes
    if axes.prompt_characters is None:
        raise UsageError(f"the probe of {probe.name} has no prompts: richness is that of the whole prompt")
    found = {"richness": math.log2(axes.prompt_characters.value), "planning": axes.planning.value / axes.horizon}
    return found if unseen is None else found | {"diversity": unseen}

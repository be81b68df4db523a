"""Ways to forget less, and to see how much is being forgotten (see `recipe/retain.py` for the settings)."""

from gentax.training.retention.interpolate import interpolate, nearest_that_keeps
from gentax.training.retention.merge import merge, merge_models
from gentax.training.retention.meter import Meter
from gentax.training.retention.replay import Replay, replayed_domains

__all__ = ["Meter", "Replay", "interpolate", "merge", "merge_models", "nearest_that_keeps", "replayed_domains"]

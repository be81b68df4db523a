"""Ways to forget less, and to see how much is being forgotten (see `config` for the settings)."""

from gentax.training.forgetting.interpolate import interpolate, nearest_that_keeps
from gentax.training.forgetting.kl_monitor import KLMonitor
from gentax.training.forgetting.merge import merge, merge_models
from gentax.training.forgetting.replay import ReplayKL, replayed_domains

__all__ = ["KLMonitor", "ReplayKL", "interpolate", "merge", "merge_models", "nearest_that_keeps", "replayed_domains"]

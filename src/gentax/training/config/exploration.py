"""How training meets what the policy would not do by itself."""

from __future__ import annotations

from dataclasses import dataclass

from gentax.training.config.ranges import at_least, positive, share


@dataclass(frozen=True)
class ExplorationConfig:
    """Exploration and guidance while training; evaluation knows nothing of it."""

    temperature_end: float | None = None
    """Sampling temperature at the last step, reached on a line from `rollout.temperature`; null keeps that."""
    count_bonus: float = 0.0
    """Paid for a step into an observation, divided by the square root of how often its group met it."""
    hints: float = 0.0
    """Share of the prompts, at the first step of the run, that tell what the domain's expert would do next."""
    expert_prefix: float = 0.0
    """Share of an episode, at the first step of the run, that the domain's expert plays before the policy takes over;
    each group has a number of steps of its own between none and that."""
    until: float = 0.5
    """Share of the run over which hints and head starts fall to nothing, on a line."""

    def __post_init__(self) -> None:
        at_least(0, exploration=self, names=("count_bonus",))
        share(exploration=self, names=("hints", "expert_prefix", "until"))
        if self.temperature_end is not None:
            positive(exploration=self, names=("temperature_end",))

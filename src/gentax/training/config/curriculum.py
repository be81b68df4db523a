"""What is trained on, and when."""

from __future__ import annotations

from dataclasses import dataclass

from gentax.training.config.mix import check_mix, shares
from gentax.training.config.ranges import positive, share


@dataclass(frozen=True)
class Phase:
    """Some updates on one mixture of domains and levels."""

    mixture: dict[str, float]
    """What is played: `domain` or `domain:level`, and its share of the groups. A group never holds two of them."""
    max_steps: int = 100
    """Updates."""

    def __post_init__(self) -> None:
        positive(phase=self, names=("max_steps",))
        check_mix(self.mixture, "a mixture", "trained on")

    @property
    def shares(self) -> dict[str, float]:
        """What is played, with shares that sum to 1."""
        return shares(self.mixture)


@dataclass(frozen=True)
class CurriculumConfig:
    """Mixtures one after the other: one phase with several domains is a mixture, several phases with one domain each
    are a cascade, several levels of one domain are a path from easy to hard. The weights after each phase are kept."""

    phases: tuple[Phase, ...] = ()
    """The phases in order; when empty, `source` for `max_steps` updates."""
    replay: float = 0.0
    """Share of the groups, in every phase but the first, drawn from what earlier phases were trained on."""
    adaptive: bool = False
    """Whether what is neither always nor never solved is drawn more often: shares are multiplied by p (1 - p), with p
    the success of the last steps that played it."""
    horizon_start: int | None = None
    """Steps after which an episode is cut off at the beginning of the run; it grows on a line over the first half of
    the run to `rollout.horizon`, or the level's own horizon. No schedule when null."""

    def __post_init__(self) -> None:
        share(curriculum=self, names=("replay",))
        if self.horizon_start is not None:
            positive(curriculum=self, names=("horizon_start",))

"""Every setting of a training run, documented where it stands."""

from __future__ import annotations

from dataclasses import dataclass, field

from gentax.core import UsageError, unknown
from gentax.rollouts.prompt import Play

CHOICES = ("auto", "bf16", "fp32")  # of precision


@dataclass(frozen=True)
class Recipe:
    """Policy-gradient training of one policy on one domain."""

    source: str = "sokoban"
    """The domain trained on."""
    level: str | None = None
    """Its level; the domain's default when null."""
    base: str = "base"
    """The policy to start from: a model folder, or `base` for the one that ships with gentax."""
    steps: int = 100
    """Updates of the weights, each after fresh episodes."""
    tasks_per_step: int = 16
    """Groups in a step; every group plays one task."""
    group: int = 8
    """Episodes on each task; their mean is the baseline."""
    lr: float = 1.5e-4
    """Peak learning rate of Adam: reached after `warmup`, then lowered linearly to 0 at the last step."""
    warmup: int = 5
    """Steps over which the learning rate rises from 0."""
    invalid_penalty: float = 0.02
    """Taken from an episode's return for each invalid action, where a success is worth 1 (the paper: 0.1, and 10). What
    a policy repeats in vain at a low temperature is rare at that of training: this makes it count."""
    kl: float = 0.01
    """Weight of the KL divergence to the starting policy in the loss."""
    clip: float = 0.2
    """How far the ratio of new to old probability may move before its gradient is cut (PPO's epsilon)."""
    precision: str = "auto"
    """`fp32`, `bf16` (autocast) or `auto`, which is bf16 where the hardware has it."""
    minibatches: int = 1
    """Updates made from the episodes of one step."""
    train_tasks: int = 4096
    """Tasks of the train split that are drawn from; all of them where the split has fewer."""
    validate_every: int = 25
    """Steps between two looks at held-out tasks; 0 for never. Nothing is decided by them."""
    validate_tasks: int = 64
    """Tasks of such a look, from a split that is not trained on."""
    checkpoint_every: int = 25
    """Steps between two checkpoints."""
    seed: int = 0
    """Which tasks are drawn, and every sampled token."""
    play: Play = field(default_factory=lambda: Play(temperature=1.0))
    """How episodes are played while training."""

    def __post_init__(self) -> None:
        positive = {"steps", "tasks_per_step", "group", "lr", "minibatches", "train_tasks", "checkpoint_every"}
        for name in sorted(positive):
            if getattr(self, name) <= 0:
                raise UsageError(f"recipe: {name} must be more than 0, not {getattr(self, name)}")
        for name in ("invalid_penalty", "kl", "clip", "warmup", "validate_every"):
            if getattr(self, name) < 0:
                raise UsageError(f"recipe: {name} must be at least 0, not {getattr(self, name)}")
        if self.precision not in CHOICES:
            raise unknown("precision", self.precision, CHOICES)
        if self.group < 2:
            raise UsageError("recipe: group must be at least 2; the mean of the group is the baseline")
        if self.play.temperature == 0:
            raise UsageError("recipe: play.temperature is 0; without chance all episodes of a group are the same")

"""Supervised training before RL: from whom, of what, how much."""

from __future__ import annotations

from dataclasses import dataclass, field

from gentax.training.config.mix import check_mix
from gentax.training.config.ranges import positive


@dataclass(frozen=True)
class SFTConfig:
    """Supervised fine-tuning on the agent's tokens, before the first policy-gradient step (warm-up, mid-training)."""

    mixture: dict[str, float] = field(default_factory=dict)
    """What is imitated: `domain` or `domain:level`, and its share of the state-action pairs. The paper's second start
    has {sciworld: 19, alfworld: 3, webshop: 1}. When empty, what is trained on afterwards."""
    teachers: dict[str, str] = field(default_factory=dict)
    """Who played, by the names in `mixture`: `expert`; `start`, the policy the run starts from; a model, named as
    `model` is, or a URL; or a file of trajectories: chats in JSONL, AgentTraj's format, gentax's own episodes (see
    `gentax.training.trajectories`). The expert where nothing is said."""
    successes_only: bool = True
    """Whether episodes that did not succeed are left out. The paper left its policy's own in."""
    max_pairs: int = 4000
    """State-action pairs in all, each a prompt and the reply to it; fewer where a teacher has no more. A step learns
    32 of them, as in the paper, and whole conversations at a time."""
    num_train_epochs: float = 1.0
    """How often each is learned from; a part of them where this is no whole number."""
    learning_rate: float | None = None
    """Peak learning rate of AdamW; warmed up over 3 % of the steps, then lowered along a cosine to a twentieth. When
    null, by the number of parameters, as `learning_rate` of the recipe: 5e-4 up to 2 M, 3e-5 at 270 M, 5e-6 from 8 B
    on; above 2 M ten times that with `lora`."""

    def __post_init__(self) -> None:
        positive(sft=self, names=("max_pairs", "num_train_epochs"))
        if self.learning_rate is not None:
            positive(sft=self, names=("learning_rate",))
        if self.mixture:
            check_mix(self.mixture, "sft.mixture", "imitated")

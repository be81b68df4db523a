"""What keeps training in one domain from costing the others: the tax cutters.

The start is `model`, before SFT too, except for `kl_budget`. Beside these settings `algorithm.beta` holds the policy
near where RL begins, `lora` narrows what can change, and `rollout.wrap` takes distractors.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gentax.training.config.ranges import at_least, choice, positive, share


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters instead of full weights (LoRA, arXiv 2106.09685)."""

    r: int = 16
    """Columns of an adapter."""
    alpha: float = 32.0
    """Its scale, over the rank."""

    def __post_init__(self) -> None:
        positive(lora=self, names=("r", "alpha"))


@dataclass(frozen=True)
class ForgettingConfig:
    """Ways to forget less. None of them sees a task or a reward of a domain that is not trained on, but `replay`
    reads the text of other domains' train tasks."""

    replay: float = 0.0
    """Weight in the loss of KL(start || policy) on the text of other domains: what the starting policy met and said
    when it played some of their train tasks. Their rewards are not looked at. It holds while imitating, too."""
    replay_domains: tuple[str, ...] = ()
    """The domains whose text is replayed; when empty, every installed one that is neither trained on, nor imitated,
    nor held out, nor a target only."""
    replay_tasks: int = 32
    """Train tasks of each that the starting policy plays, once, before training."""
    interpolate: float | None = None
    """Ends the run with weights between the start's and the trained ones (WiSE-FT, arXiv 2109.01903): those nearest
    to the start that keep this share of the gain in success on validation tasks; the start's own where there was no
    gain. Null keeps the trained ones."""
    merge: str | None = None
    """Trains a policy for each domain of the mixture, all from the start, and merges them: `mean` of the weights. Null
    trains one policy on the mixture."""
    kl_budget: float | None = None
    """Ends the run when KL(then || now), in nats an action on states that the policy met in 32 tasks trained on when RL
    began, passes this; what is kept is the last checkpoint below it. It is looked at with every checkpoint."""
    custom: tuple[str, ...] = field(default=(), metadata={"omit_default": True})
    """Methods of your own, each a class as `module:Class` (see `gentax.training.forgetting`)."""

    def __post_init__(self) -> None:
        at_least(0, forgetting=self, names=("replay",))
        positive(forgetting=self, names=("replay_tasks",))
        if self.interpolate is not None:
            share(forgetting=self, names=("interpolate",))
        if self.merge is not None:
            choice("forgetting.merge", self.merge, ("mean",))
        if self.kl_budget is not None:
            positive(forgetting=self, names=("kl_budget",))

"""What an episode is worth beside what its environment pays (`rollout.reward`: sparse, dense or shaped)."""

from __future__ import annotations

from dataclasses import dataclass

from gentax.training.config.ranges import at_least


@dataclass(frozen=True)
class RewardConfig:
    """Added to the environment's rewards before anything is learned from them; a success pays 1."""

    invalid_penalty: float = 0.02
    """Taken for each action that cannot be read or is refused (the paper: 0.1, where a success pays 10). A reply that
    is cut off before its action pays it too: a policy should come to its action within its budget."""
    think_length: float = 0.0
    """Paid for every 100 words that the policy thinks; below 0 it makes thoughts shorter."""
    judge: str | None = None
    """A policy that reads each finished episode and gives it a score from 0 to 1: the URL of an OpenAI-compatible
    server, such as `http://localhost:8000/v1#model`, a model as `model` names one, or a policy of your own,
    `module:policy`."""
    judge_weight: float = 1.0
    """What the judge's full score pays."""

    def __post_init__(self) -> None:
        at_least(0, reward=self, names=("invalid_penalty", "judge_weight"))

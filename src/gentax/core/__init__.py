"""The words everything else is written in: tasks, episodes, environments, errors. Imports nothing of gentax."""

from gentax.core.env import (
    SPLITS,
    Domain,
    ExpertAction,
    Level,
    StepResult,
    Task,
    TextEnv,
    content_hash,
    split_of,
    stable_seed,
)
from gentax.core.episode import Episode, Outcome, Step, Tokens, TokenSequence
from gentax.core.errors import EnvironmentFault, NonFiniteLoss, PolicyFault, UsageError, unknown

__all__ = [
    "SPLITS",
    "Domain",
    "EnvironmentFault",
    "Episode",
    "ExpertAction",
    "Level",
    "NonFiniteLoss",
    "Outcome",
    "PolicyFault",
    "Step",
    "StepResult",
    "Task",
    "TextEnv",
    "TokenSequence",
    "Tokens",
    "UsageError",
    "content_hash",
    "split_of",
    "stable_seed",
    "unknown",
]  # fmt: skip

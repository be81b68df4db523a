"""The words everything else is written in: tasks, episodes, environments, errors. Imports nothing of gentax."""

from gentax.core.env import Acted, Domain, Level, Move, TextEnv
from gentax.core.episode import Episode, Outcome, Sequence, Step, Tokens
from gentax.core.errors import EnvironmentFault, NonFiniteLoss, PolicyFault, UsageError, unknown
from gentax.core.task import Task, stable_seed

__all__ = [
    "Acted", "Domain", "EnvironmentFault", "Episode", "Level", "Move", "NonFiniteLoss", "Outcome", "PolicyFault",
    "Sequence", "Step", "Task", "TextEnv", "Tokens", "UsageError", "stable_seed", "unknown",
]  # fmt: skip

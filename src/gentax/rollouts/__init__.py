"""From tasks to episodes: prompts, and the engine that plays many episodes at once."""

from gentax.rollouts.engine import EnvPool, rollout
from gentax.rollouts.prompt import Play

__all__ = ["EnvPool", "Play", "rollout"]

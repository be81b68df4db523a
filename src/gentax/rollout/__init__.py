"""From tasks to episodes: prompts, and the engine that plays many episodes at once."""

from gentax.rollout.engine import EnvPool, rollout
from gentax.rollout.prompt import Play

__all__ = ["EnvPool", "Play", "rollout"]

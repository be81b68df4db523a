"""From tasks to episodes: prompts, and the engine that plays many episodes at once."""

from gentax.rollouts.engine import EnvPool, make_env, rollout
from gentax.rollouts.prompt import RolloutConfig

__all__ = ["EnvPool", "RolloutConfig", "make_env", "rollout"]

"""From tasks to episodes: prompts, and the engine that plays many episodes at once."""

from gentax.rollouts.engine import EnvPool, make_env, rollout
from gentax.rollouts.prompt import EvalRolloutConfig, RolloutConfig

__all__ = ["EnvPool", "EvalRolloutConfig", "RolloutConfig", "make_env", "rollout"]

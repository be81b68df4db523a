"""Who plays: random, expert, local weights, a model behind an endpoint."""

from gentax.policies.named import policy_of, policy_pair
from gentax.policies.protocol import Policy, Reply, Turn
from gentax.policies.simple import ExpertPolicy, RandomPolicy

__all__ = ["ExpertPolicy", "Policy", "RandomPolicy", "Reply", "Turn", "policy_of", "policy_pair"]

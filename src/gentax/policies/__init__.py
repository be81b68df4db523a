"""Who plays: random, expert, local weights, a model behind an endpoint."""

from gentax.policies.load import policy_of, policy_pair
from gentax.policies.protocol import Policy, Reply, Turn
from gentax.policies.scripted import ExpertPolicy, RandomPolicy

__all__ = ["ExpertPolicy", "Policy", "RandomPolicy", "Reply", "Turn", "policy_of", "policy_pair"]

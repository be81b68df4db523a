"""Who plays: random, expert, local weights, a model behind an endpoint."""

from gentax.policies.load import load_policy, load_policy_pair
from gentax.policies.protocol import Policy, PolicyRequest, Reply
from gentax.policies.scripted import ExpertPolicy, RandomPolicy

__all__ = ["ExpertPolicy", "Policy", "PolicyRequest", "RandomPolicy", "Reply", "load_policy", "load_policy_pair"]

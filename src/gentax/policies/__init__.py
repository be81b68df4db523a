"""Policies: random, expert, local models, models behind an endpoint, and the user's own."""

from gentax.policies.load import ExpertPolicy, RandomPolicy, load_policy, load_policy_pair
from gentax.policies.protocol import Policy, PolicyRequest, Reply

__all__ = ["ExpertPolicy", "Policy", "PolicyRequest", "RandomPolicy", "Reply", "load_policy", "load_policy_pair"]

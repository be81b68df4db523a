"""Policies: random, expert, local models, models behind an endpoint, and the user's own."""

from gentax.policies.load import load_policy, load_policy_pair
from gentax.policies.protocol import Policy, PolicyRequest, Reply
from gentax.policies.scripted import ExpertPolicy, RandomPolicy

__all__ = ["ExpertPolicy", "Policy", "PolicyRequest", "RandomPolicy", "Reply", "load_policy", "load_policy_pair"]

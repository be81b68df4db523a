"""Who plays: random, expert, local weights."""

from gentax.policies.protocol import Policy, Reply, Turn
from gentax.policies.simple import ExpertPolicy, RandomPolicy

__all__ = ["ExpertPolicy", "Policy", "RandomPolicy", "Reply", "Turn"]

"""Scoring token sequences with a causal model, for learning and for KL: each distinct prefix is computed once."""

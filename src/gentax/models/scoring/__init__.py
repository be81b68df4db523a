"""Scoring token sequences with a causal model, for learning and for KL: any architecture, and of those where that is
exact each distinct prefix once."""

from gentax.models.scoring.batch import Batch
from gentax.models.scoring.logprobs import kl_of_states, log_probabilities, score, states
from gentax.models.scoring.supported import batches, way_of

__all__ = ["Batch", "batches", "kl_of_states", "log_probabilities", "score", "states", "way_of"]

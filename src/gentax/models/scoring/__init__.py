"""Score token sequences with a causal model, for training and KL: any architecture, with prefix sharing where it is
exact.
"""

from gentax.models.scoring.batch import ScoringBatch
from gentax.models.scoring.logprobs import hidden_states, state_logits, token_kl, token_logprobs
from gentax.models.scoring.supported import make_batches, scoring_method, sequence_kl

__all__ = [
    "ScoringBatch",
    "hidden_states",
    "make_batches",
    "scoring_method",
    "sequence_kl",
    "state_logits",
    "token_kl",
    "token_logprobs",
]

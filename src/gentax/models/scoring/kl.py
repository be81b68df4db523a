"""KL(start || model) of what a policy writes, exact over the vocabulary, for KL penalties and monitors.

The expectation over tokens is a sum, not a sample; the one over states depends on the sequences given. Weights are
taken as they are, at temperature 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gentax.models.scoring import make_batches, token_kl


@torch.no_grad()
def sequence_kl(
    start: Any, model: Any, ids: Sequence[np.ndarray], sampled: Sequence[np.ndarray], precision: str = "fp32"
) -> np.ndarray:
    """Return KL(start || model) of each sequence's sampled tokens, in nats: float64, shape (sequences,).

    The KL of a reply is the sum over its tokens (chain rule). A sequence's first token is not predicted and not
    counted.

    Args:
        start, model, precision: see `token_kl`.
        ids: token ids of each sequence.
        sampled: for each, a boolean mask of the tokens that the starting policy sampled at temperature 1.
    """
    nats_S = np.zeros(len(ids))
    for batch in make_batches(start, ids, sampled):
        kl_T = token_kl(start, model, batch, precision).double().cpu().numpy()[batch.state_index_S.numpy()]
        counts = [int(sampled[member][1:].sum()) for member in batch.sequences]
        ends = np.cumsum(counts)
        for member, count, end in zip(batch.sequences, counts, ends, strict=True):
            nats_S[member] = kl_T[end - count : end].sum()
    return nats_S

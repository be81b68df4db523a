"""Sampling the next token of each row from its logits and a uniform number of its own.

A row never depends on its neighbours in the batch.
"""

from __future__ import annotations

import torch


def draw(
    logits: torch.Tensor, temperature_B: torch.Tensor, uniform_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw by inverting the distribution function; temperature 0 takes the likeliest token.

    Args:
        logits: (B, vocabulary).
        temperature_B: float32.
        uniform_B: float64 in [0, 1).

    Returns:
        Tokens (int64) and their log-probabilities (float32) under the distribution drawn from.
    """
    greedy_B = temperature_B == 0
    p = torch.softmax(logits.float() / temperature_B.masked_fill(greedy_B, 1.0)[:, None], dim=-1)
    cumulative = p.cumsum(dim=-1, dtype=torch.float64)  # float32 would lose the tail of a large vocabulary
    token_B = torch.searchsorted(cumulative, uniform_B[:, None] * cumulative[:, -1:])[:, 0]
    token_B = torch.where(greedy_B, p.argmax(dim=-1), token_B.clamp(max=p.shape[-1] - 1))
    return token_B, p.gather(1, token_B[:, None])[:, 0].log()

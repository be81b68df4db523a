"""Sample the next token of each row from its logits, and keep track of requests while they are decoded.

Each row has uniform numbers of its own, so it never depends on the rest of the batch. Logits are processed in the order
of transformers: temperature, then `top_k`, `top_p` and `min_p`, each on what the previous one left. A checkpoint's
`generation_config.json` is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from gentax.models.options import Sample, SamplingParams, SamplingRequest

StopCondition = Callable[[list[int]], bool]


class SamplingFilters(NamedTuple):
    """Logits filters of B rows; off where `top_k` is 0, `top_p` 1 and `min_p` 0."""

    top_k_B: torch.Tensor  # int64
    top_p_B: torch.Tensor  # float32
    min_p_B: torch.Tensor  # float32


def batch_filters(params: Sequence[SamplingParams], device: torch.device | str = "cpu") -> SamplingFilters | None:
    """Return the filters of a batch, or None where all are off."""
    if not any(p.top_k or p.top_p < 1 or p.min_p for p in params):
        return None
    return SamplingFilters(
        torch.tensor([p.top_k for p in params], device=device),
        torch.tensor([p.top_p for p in params], dtype=torch.float32, device=device),
        torch.tensor([p.min_p for p in params], dtype=torch.float32, device=device),
    )


def sample_tokens(
    logits: torch.Tensor, temperature_B: torch.Tensor, uniform_B: torch.Tensor, filters: SamplingFilters | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample by inverting the cumulative distribution; temperature 0 takes the most likely token.

    Args:
        logits: (B, vocabulary).
        temperature_B: float32.
        uniform_B: float64 in [0, 1).
        filters: None where all are off, which costs nothing.

    Returns:
        Tokens (int64) and their log-probabilities (float32) under the filtered, renormalised distribution.
    """
    greedy_B = temperature_B == 0
    scaled = logits.float() / temperature_B.masked_fill(greedy_B, 1.0)[:, None]
    p = torch.softmax(scaled if filters is None else _filter_logits(scaled, filters), dim=-1)
    cumulative = p.cumsum(dim=-1, dtype=torch.float64)  # float32 would lose the tail of a large vocabulary
    total = cumulative[:, -1:]
    # The first sum above a number that is below the total: never a token without probability.
    number = torch.minimum(uniform_B[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    token_B = torch.searchsorted(cumulative, number, right=True)[:, 0]
    token_B = torch.where(greedy_B, p.argmax(dim=-1), token_B)
    return token_B, p.gather(1, token_B[:, None])[:, 0].log()


def _filter_logits(scaled: torch.Tensor, filters: SamplingFilters) -> torch.Tensor:
    """Set the logits (B, vocabulary) of excluded tokens to -inf. The best token is never excluded."""
    size = scaled.shape[-1]
    ordered, token = scaled.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(size, device=scaled.device)
    top_k_B = torch.where(filters.top_k_B > 0, filters.top_k_B, size)
    ordered = ordered.masked_fill(rank >= top_k_B[:, None], float("-inf"))
    p = ordered.softmax(dim=-1)
    before = p.cumsum(dim=-1) - p
    drop = (before >= filters.top_p_B[:, None]) & (filters.top_p_B < 1)[:, None]
    # Renormalising after `top_p` keeps ratios, so `min_p` may use the probabilities before it.
    drop |= p < filters.min_p_B[:, None] * p[:, :1]
    drop[:, 0] = False
    ordered = ordered.masked_fill(drop, float("-inf"))
    return torch.empty_like(scaled).scatter_(1, token, ordered)


@dataclass(slots=True)
class ActiveRequest:
    """A request and the tokens sampled for it so far."""

    request: SamplingRequest
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False

    @property
    def position(self) -> int:
        """The position of the last token, which is sampled but not yet in the KV cache."""
        return len(self.request.prompt) + len(self.ids) - 1

    @property
    def uniform(self) -> float:
        """The number the next token is sampled with."""
        return float(self.request.uniforms[min(len(self.ids), len(self.request.uniforms) - 1)])

    def append(self, token: int, logprob: float, stop: StopCondition) -> None:
        self.ids.append(token)
        self.logprobs.append(logprob)
        self.finished = stop(self.ids) or len(self.ids) == len(self.request.uniforms)

    def sample(self) -> Sample:
        return Sample(np.asarray(self.ids, np.int32), np.asarray(self.logprobs, np.float32))


def sampling_inputs(
    rows: Sequence[ActiveRequest], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, SamplingFilters | None]:
    """Return what `sample_tokens` needs besides logits: temperatures, uniform numbers and filters."""
    params = [row.request.params for row in rows]
    temperature_B = torch.tensor([p.temperature for p in params], dtype=torch.float32, device=device)
    uniform_B = torch.tensor([row.uniform for row in rows], dtype=torch.float64, device=device)
    return temperature_B, uniform_B, batch_filters(params, device)


def sample_next(rows: Sequence[ActiveRequest], logits: torch.Tensor, stop: StopCondition) -> None:
    """Sample the next token of every unfinished row from its logits (rows, vocabulary)."""
    token_B, logp_B = sample_tokens(logits, *sampling_inputs(rows, logits.device))
    for row, token, logp in zip(rows, token_B.tolist(), logp_B.tolist(), strict=True):
        if not row.finished:
            row.append(token, logp, stop)


def check_lengths(requests: Sequence[SamplingRequest], max_length: int) -> int:
    """Return the most tokens that a row may reach. Raises ValueError where that exceeds the model's positions."""
    longest = max(len(request.prompt) + len(request.uniforms) for request in requests)
    if longest > max_length:
        raise ValueError(f"{longest} tokens exceed the model's {max_length} positions")
    return longest

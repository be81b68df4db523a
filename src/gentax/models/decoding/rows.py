"""A request while it is answered, and what all rows of a step are sampled with: shared by the decoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from gentax.models.requests import Sample, SamplingRequest
from gentax.models.sampling import draw, filters_of

Stop = Callable[[list[int]], bool]


@dataclass(slots=True)
class Row:
    """A request and what was written for it so far."""

    request: SamplingRequest
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    over: bool = False

    @property
    def position(self) -> int:
        """Of the last token: it was sampled, and its keys and values are not computed yet."""
        return len(self.request.prompt) + len(self.ids) - 1

    @property
    def uniform(self) -> float:
        return float(self.request.uniforms[min(len(self.ids), len(self.request.uniforms) - 1)])

    def write(self, token: int, logprob: float, stop: Stop) -> None:
        self.ids.append(token)
        self.logprobs.append(logprob)
        self.over = stop(self.ids) or len(self.ids) == len(self.request.uniforms)

    def sample(self) -> Sample:
        return Sample(np.asarray(self.ids, np.int32), np.asarray(self.logprobs, np.float32))


def write_next(rows: Sequence[Row], logits: torch.Tensor, stop: Stop) -> None:
    """Sample the next token of every row that is not over from its logits (rows, vocabulary)."""
    params = [row.request.params for row in rows]
    temperature = torch.from_numpy(np.array([p.temperature for p in params], np.float32)).to(logits.device)
    uniform = torch.from_numpy(np.array([row.uniform for row in rows])).to(logits.device)
    token_B, logp_B = draw(logits, temperature, uniform, filters_of(params, logits.device))
    for row, token, logp in zip(rows, token_B.tolist(), logp_B.tolist(), strict=True):
        if not row.over:
            row.write(token, logp, stop)


def check_lengths(requests: Sequence[SamplingRequest], limit: int) -> int:
    """Return the most tokens that a row may come to have.

    Raises:
        ValueError: a prompt that with its continuation is longer than the model's positions.
    """
    longest = max(len(request.prompt) + len(request.uniforms) for request in requests)
    if longest > limit:
        raise ValueError(f"{longest} tokens exceed the model's {limit} positions")
    return longest

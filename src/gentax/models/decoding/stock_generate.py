"""Sampling through a model's own `generate`, for architectures that the lean decoder does not know.

Slow, since every step's whole prompt is computed again, but right for any causal model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from gentax.models.requests import Sample, SamplingRequest


class StockDecoder:
    """The interface of `Decoder` over `model.generate`. Asks must share one temperature."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.limit = getattr(model.config, "max_position_embeddings", 2048)

    def forget(self) -> None:
        """Nothing is cached between calls."""

    @torch.inference_mode()
    def sample(self, asks: Sequence[SamplingRequest], stop: Callable[[list[int]], bool]) -> list[Sample]:
        """Continue every prompt until `stop(ids so far)` or until its uniforms are used up."""
        temperature = asks[0].params.temperature
        wide = max(len(ask.prompt) for ask in asks)
        pad = self.model.generation_config.pad_token_id or 0
        ids = torch.full((len(asks), wide), pad, device=self.model.device)
        mask = torch.zeros_like(ids)
        for row, ask in enumerate(asks):
            ids[row, wide - len(ask.prompt) :] = torch.tensor(ask.prompt.astype(np.int64))
            mask[row, wide - len(ask.prompt) :] = 1
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        with torch.random.fork_rng():  # `generate` draws from the global generator; leave it as it was
            torch.manual_seed(int(asks[0].uniforms[0] * 2**53))
            made = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=len(asks[0].uniforms),
                stopping_criteria=StoppingCriteriaList([_Stop(stop, wide)]),
                output_logits=True,
                return_dict_in_generate=True,
                pad_token_id=pad,
                **sampling,
            )
        logp = torch.stack(made.logits, dim=1).float().div(temperature or 1.0).log_softmax(dim=-1)
        written = made.sequences[:, wide:]
        values = logp.gather(2, written[:, :, None])[:, :, 0].cpu().numpy()
        samples = []
        for row, tokens in enumerate(written.tolist()):
            end = next((n for n in range(1, len(tokens) + 1) if stop(tokens[:n])), len(tokens))
            samples.append(Sample(np.asarray(tokens[:end], np.int32), values[row, :end].astype(np.float32)))
        return samples


class _Stop(StoppingCriteria):
    def __init__(self, stop: Callable[[list[int]], bool], start: int) -> None:
        self.stop, self.start = stop, start
        self.over: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        now = torch.tensor([self.stop(row[self.start :]) for row in input_ids.tolist()], device=input_ids.device)
        self.over = now if self.over is None else self.over | now
        return self.over

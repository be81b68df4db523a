"""The peer of playing: what one writes with transformers alone, behind the interface of gentax's decoders.

Prompts padded on the left, one call of the model's `generate` with its key-value cache for all episodes still running,
every step's whole prompt computed again. It samples from torch's generator.

Used by other scripts; it is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from gentax.models.options import Sample, SamplingRequest


class StockDecoder:
    """`model.generate` as a decoder. Requests must share one temperature above 0."""

    reserved_bytes = 0  # nothing is kept between calls

    def __init__(self, model: Any) -> None:
        self.model = model
        self.max_length = getattr(model.config, "max_position_embeddings", 2048)

    def cache_bytes(self, tokens: int) -> int:
        return 0

    def clear_cache(self) -> None:
        """Nothing is cached between calls."""

    @torch.inference_mode()
    def sample(self, requests: Sequence[SamplingRequest], stop: Callable[[list[int]], bool]) -> list[Sample]:
        """Continue every prompt until `stop(ids so far)` or until its uniforms are used up."""
        temperature = requests[0].params.temperature
        wide = max(len(request.prompt) for request in requests)
        pad = self.model.generation_config.pad_token_id or 0
        ids = torch.full((len(requests), wide), pad, device=self.model.device)
        mask = torch.zeros_like(ids)
        for row, request in enumerate(requests):
            ids[row, wide - len(request.prompt) :] = torch.tensor(request.prompt.astype(np.int64))
            mask[row, wide - len(request.prompt) :] = 1
        with torch.random.fork_rng():  # `generate` draws from the global generator; leave it as it was
            torch.manual_seed(int(requests[0].uniforms[0] * 2**53))
            made = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=len(requests[0].uniforms),
                stopping_criteria=StoppingCriteriaList([_Stop(stop, wide)]),
                output_logits=True,
                return_dict_in_generate=True,
                pad_token_id=pad,
                do_sample=True,
                temperature=temperature,
                top_k=0,
            )
        written = made.sequences[:, wide:]
        scores = [logits.float().div(temperature).log_softmax(-1) for logits in made.logits]
        values = torch.stack([s.gather(1, written[:, n : n + 1])[:, 0] for n, s in enumerate(scores)], 1).cpu().numpy()
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

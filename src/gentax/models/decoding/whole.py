"""Sampling from a model that keeps no cache this package can hold: the whole sequence is computed for every token.

Slow, and right for anything that has a forward pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gentax.models.decoding.rows import Row, Stop, check_lengths, write_next
from gentax.models.positions import positions_of
from gentax.models.requests import Sample, SamplingRequest


class WholeDecoder:
    """The interface of the other decoders over `model(input_ids)`; rows of equal length are computed together."""

    bytes_per_token = held_bytes = 0

    def __init__(self, model: Any) -> None:
        self.model = model
        self.limit = positions_of(model.config)
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._extra = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(inner.forward).parameters else {}

    def forget(self) -> None:
        """Nothing is cached between calls."""

    @torch.inference_mode()
    def sample(self, requests: Sequence[SamplingRequest], stop: Stop) -> list[Sample]:
        """Continue every prompt until `stop(ids so far)` or until its uniforms are used up."""
        check_lengths(requests, self.limit)
        rows = [Row(request) for request in requests]
        while live := [row for row in rows if not row.over]:
            length = min(row.position for row in live)
            now = [row for row in live if row.position == length]
            ids = np.array([[*row.request.prompt.tolist(), *row.ids] for row in now])
            out = self.model(input_ids=torch.from_numpy(ids).to(self.model.device), use_cache=False, **self._extra)
            write_next(now, out.logits[:, -1], stop)
        return [row.sample() for row in rows]

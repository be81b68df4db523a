"""One token for every row: what answers are written with."""

from __future__ import annotations

from typing import NamedTuple

import torch

from gentax.policies.decode.attention import attend, causal
from gentax.policies.decode.cache import Rows
from gentax.policies.decode.draw import draw
from gentax.policies.decode.weights import Weights


class Step(NamedTuple):
    """What goes into a step, for B rows."""

    id_B: torch.Tensor  # int64: the last token
    position_B: torch.Tensor  # int64: where it stands
    temperature_B: torch.Tensor  # float32
    uniform_B: torch.Tensor  # float64: what to draw the next with


def step(weights: Weights, rows: Rows, now: Step, end: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Run one token of each of the rows, and draw the next; return tokens and log-probabilities.

    Args:
        rows: the cached tokens before it; its own keys and values are added.
        end: keys that attention looks at, from the first; more than the largest position.
    """
    at_B = torch.arange(len(now.id_B), device=now.id_B.device)
    x_B = weights.embed.index_select(0, now.id_B)
    cos_B, sin_B = weights.cos.index_select(0, now.position_B), weights.sin.index_select(0, now.position_B)
    mask = causal(now.position_B[:, None], end, weights.heads // weights.groups, weights.dtype)
    for layer, (keys, values) in zip(weights.layers, rows.layers, strict=True):
        q, k, v = layer.project(x_B, cos_B, sin_B)
        keys[at_B, :, now.position_B] = k
        values[at_B, :, now.position_B] = v
        x_B = layer.finish(x_B, attend(q[:, None], keys[:, :, :end], values[:, :, :end], mask))
    return draw(weights.logits(x_B), now.temperature_B, now.uniform_B)

"""One token for every row: what answers are written with."""

from __future__ import annotations

from typing import NamedTuple

import torch

from gentax.models.decoding.attention import attend, causal
from gentax.models.decoding.cache import Rows
from gentax.models.decoding.weights import Weights
from gentax.models.sampling import Filters, draw


class Step(NamedTuple):
    """What goes into a step, for B rows."""

    id_B: torch.Tensor  # int64: the last token
    position_B: torch.Tensor  # int64: where it stands
    temperature_B: torch.Tensor  # float32
    uniform_B: torch.Tensor  # float64: what to sample the next with
    filters: Filters | None = None  # None where all are off


class Alike(NamedTuple):
    """Rows with the same tokens so far, of which all but attention is computed once: D different ones."""

    first_D: torch.Tensor  # int64: a row of each kind
    kind_B: torch.Tensor  # int64


def step(
    weights: Weights, rows: Rows, now: Step, end: int, alike: Alike | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run one token of each of the rows, and sample the next; return tokens and log-probabilities.

    Args:
        rows: the cached tokens before it; its own keys and values are added.
        end: keys that attention looks at, from the first; more than the largest position.
        alike: which rows are the same; none when left out.
    """

    def each(x_B: torch.Tensor) -> torch.Tensor:
        return x_B if alike is None else x_B.index_select(0, alike.first_D)

    def all_of(x_D: torch.Tensor) -> torch.Tensor:
        return x_D if alike is None else x_D.index_select(0, alike.kind_B)

    at_B = torch.arange(len(now.id_B), device=now.id_B.device)
    id_D, position_D = each(now.id_B), each(now.position_B)
    x_D = weights.embed.index_select(0, id_D)
    cos_D, sin_D = weights.cos.index_select(0, position_D), weights.sin.index_select(0, position_D)
    mask = causal(now.position_B[:, None], end, weights.heads // weights.groups, weights.dtype)
    for layer, (keys, values) in zip(weights.layers, rows.layers, strict=True):
        q, k, v = layer.project(x_D, cos_D, sin_D)
        keys[at_B, :, now.position_B] = all_of(k)
        values[at_B, :, now.position_B] = all_of(v)
        mixed_B = attend(all_of(q)[:, None], keys[:, :, :end], values[:, :, :end], mask)
        x_D = layer.finish(x_D, each(mixed_B))
    return draw(all_of(weights.logits(x_D)), now.temperature_B, now.uniform_B, now.filters)

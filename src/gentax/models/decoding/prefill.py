"""The tokens of a `plan.Pass`, all layers: what prompts are read with."""

from __future__ import annotations

import numpy as np
import torch

from gentax.models.decoding.attention import attend, causal
from gentax.models.decoding.cache import Rows
from gentax.models.decoding.plan import Bucket, Pass
from gentax.models.decoding.weights import Weights


def run(weights: Weights, rows: Rows, part: Pass) -> torch.Tensor:
    """Run the tokens of a pass; return what the last layer hands on after each prompt, (prompts, width).

    Of the other tokens the last layer gives nothing but keys and values.

    Args:
        rows: what is cached; the keys and values of the tokens are added wherever the pass says.
    """
    device = weights.device
    row_M, position_M, from_M, position_N, place_N, ids_N = (
        torch.from_numpy(array).to(device)
        for array in (part.row_M, part.position_M, part.from_M, part.position_N, part.place_N, part.ids_N)
    )
    tiles = [_Tile(weights, bucket) for bucket in part.buckets]
    # Looking rows up by `index_select` takes a fraction of the time of indexing with a tensor.
    x_N = weights.embed.index_select(0, ids_N)
    cos_N, sin_N = weights.cos.index_select(0, position_N), weights.sin.index_select(0, position_N)
    for layer, (keys, values) in zip(weights.layers, rows.layers, strict=True):
        q, k, v = layer.project(x_N, cos_N, sin_N)
        keys[row_M, :, position_M] = k.index_select(0, from_M)
        values[row_M, :, position_M] = v.index_select(0, from_M)
        if layer is weights.layers[-1]:
            tile = _Tile(weights, part.last)
            x_N, mixed = x_N.index_select(0, tile.query), tile.mix(q, keys, values)
        else:
            mixed = torch.cat([tile.mix(q, keys, values) for tile in tiles]).index_select(0, place_N)
        x_N = layer.finish(x_N, mixed)
    return x_N


class _Tile:
    """A bucket, as its attention needs it."""

    def __init__(self, weights: Weights, bucket: Bucket) -> None:
        device = weights.device
        self.row_B = torch.from_numpy(bucket.row_B).to(device)
        self.together = bool((np.diff(bucket.row_B) == 1).all())  # then keys are read where they are
        self.first, self.end = int(bucket.row_B[0]), bucket.end
        self.query = torch.from_numpy(bucket.query_BQ.ravel()).to(device)
        position_BQ = torch.from_numpy(bucket.start_B[:, None] + np.arange(bucket.query_BQ.shape[1])).to(device)
        self.mask = causal(position_BQ, bucket.end, weights.heads // weights.groups, weights.dtype)

    def mix(self, q_N: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Attend; return the mixed values of all queries, (B * Q, heads * head)."""
        q = q_N.index_select(0, self.query).unflatten(0, (len(self.row_B), -1))
        return attend(q, self._rows(keys), self._rows(values), self.mask)

    def _rows(self, cached: torch.Tensor) -> torch.Tensor:
        seen = cached[:, :, : self.end]
        return seen[self.first : self.first + len(self.row_B)] if self.together else seen.index_select(0, self.row_B)

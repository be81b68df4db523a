"""Prefill: compute every distinct (prefix, token) of a batch of prompts once, and nothing that is cached.

Sorted, prompts with a common prefix are neighbours. Each computes what follows the prefix it shares with its
predecessor; keys and values of the prefix are written to its row as well, layer by layer, by whoever computes them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gentax.core.episode import common_prefix_length, prefix_order
from gentax.models.decoding.llama_model import KVCache, LlamaModel, attention, causal_mask

BUCKET_WIDTH = 16


@dataclass(frozen=True, slots=True)
class PrefillBucket:
    """Rows with similar numbers of new tokens: B rows padded to Q queries."""

    row_B: np.ndarray
    start_B: np.ndarray  # position of the first query
    query_BQ: np.ndarray  # index into the tokens of the pass; padding repeats one of them
    end: int  # keys to attend to, from the first


@dataclass(frozen=True, slots=True)
class PrefillPass:
    """N tokens to compute in one pass, and the M cache positions that they fill."""

    ids_N: np.ndarray
    position_N: np.ndarray
    from_M: np.ndarray  # index into N
    row_M: np.ndarray
    position_M: np.ndarray
    buckets: list[PrefillBucket]
    place_N: np.ndarray  # of each token among the concatenated queries of all buckets
    last: PrefillBucket  # the last token of each prompt, in order


@dataclass(frozen=True, slots=True)
class PrefillPlan:
    """Cache copies to make first, as (from row, to row, start, end), then the passes."""

    copies: list[tuple[int, int, int, int]]
    passes: list[PrefillPass]
    last_B: np.ndarray  # index of each prompt's last token among those of all passes; equal prompts share one


def plan_prefill(prompts: Sequence[np.ndarray], rows: Sequence[int], kept: Sequence[int], chunk: int) -> PrefillPlan:
    """Plan how to bring prompts into their rows.

    Args:
        prompts: token ids.
        rows: the cache row of each prompt.
        kept: how many leading tokens of each prompt are cached in its row; fewer than all.
        chunk: tokens in one pass, unless a single row has more.
    """
    order = prefix_order(prompts)
    same = [
        0,
        *(common_prefix_length(prompts[a], prompts[b]) for a, b in itertools.pairwise(order)),
    ]  # tokens in common with the previous prompt
    have = list(kept)
    copies = _copies(prompts, rows, have, order, same)
    own: list[tuple[int, int, int]] = []  # (prompt, from, to): tokens to compute
    stored: list[tuple[np.ndarray, int, int]] = []  # (tokens, row, position of the first)
    last_B = np.zeros(len(prompts), np.int64)
    computed = 0
    path = np.zeros(0, np.int64)  # computed token of each position of the previous prompt; -1 where it was cached
    for i, shared in zip(order, same, strict=True):
        start, end = max(have[i], shared), len(prompts[i])
        new = np.arange(computed, computed + end - start)
        computed += len(new)
        path = np.concatenate([path[:shared], np.full(start - shared, -1), new])
        stored.append((path[have[i] :], rows[i], have[i]))
        if len(new):  # else it equals the previous prompt
            own.append((i, start, end))
        last_B[i] = len(own) - 1
    from_M = np.concatenate([tokens for tokens, _, _ in stored])
    row_M = np.repeat([row for _, row, _ in stored], [len(tokens) for tokens, _, _ in stored])
    position_M = np.concatenate([np.arange(start, start + len(tokens)) for tokens, _, start in stored])
    passes, done = [], 0
    for part in _parts(own, chunk):
        ids_N = np.concatenate([prompts[i][start:end] for i, start, end in part]).astype(np.int64)
        in_pass = (from_M >= done) & (from_M < done + len(ids_N))
        spans = [(rows[i], start, end) for i, start, end in part]
        buckets, place_N = _buckets(spans)
        position_N = np.concatenate([np.arange(start, end) for _, start, end in part])
        stores = (from_M[in_pass] - done, row_M[in_pass], position_M[in_pass])
        passes.append(PrefillPass(ids_N, position_N, *stores, buckets, place_N, _last(spans)))
        done += len(ids_N)
    return PrefillPlan(copies, passes, last_B)


def _copies(
    prompts: Sequence[np.ndarray], rows: Sequence[int], have: list[int], order: list[int], same: list[int]
) -> list[tuple[int, int, int, int]]:
    """Copy the common prefix from a neighbour that has it cached; update `have`."""
    pairs = list(zip(order, order[1:], same[1:], strict=False))
    copies = []
    for source, target, shared in [(b, a, n) for a, b, n in reversed(pairs)] + pairs:
        end = min(shared, have[source], len(prompts[target]) - 1)  # the last token is always computed
        if end > have[target]:
            copies.append((rows[source], rows[target], have[target], end))
            have[target] = end
    return copies


def _parts(own: list[tuple[int, int, int]], chunk: int) -> Iterator[list[tuple[int, int, int]]]:
    """Split the new tokens into passes, in order: a shared prefix is computed in the same pass or before."""
    part: list[tuple[int, int, int]] = []
    size = 0
    for item in own:
        new = item[2] - item[1]
        if part and size + new > chunk:
            yield part
            part, size = [], 0
        part.append(item)
        size += new
    if part:
        yield part


def _buckets(part: list[tuple[int, int, int]]) -> tuple[list[PrefillBucket], np.ndarray]:
    """Group rows, as (row, from, to), by how many tokens are new: fewer than `BUCKET_WIDTH` apart."""
    kinds: dict[int, list[tuple[int, int, int, int]]] = {}
    begin = 0
    for row, start, end in part:
        kinds.setdefault((end - start - 1) // BUCKET_WIDTH, []).append((row, start, end, begin))
        begin += end - start
    place_N = np.zeros(begin, np.int64)
    buckets, laid = [], 0
    for kind in kinds.values():
        wide = max(end - start for _, start, end, _ in kind)
        query_BQ = np.zeros((len(kind), wide), np.int64)
        for b, (_, start, end, begin) in enumerate(kind):
            n = end - start
            query_BQ[b, :n] = np.arange(begin, begin + n)
            place_N[begin : begin + n] = laid + b * wide + np.arange(n)
        row_B, start_B = (np.array([item[k] for item in kind]) for k in (0, 1))
        buckets.append(PrefillBucket(row_B, start_B, query_BQ, max(end for _, _, end, _ in kind)))
        laid += query_BQ.size
    return buckets, place_N


def _last(part: list[tuple[int, int, int]]) -> PrefillBucket:
    row_B, start_B, end_B = np.array(part).T
    return PrefillBucket(row_B, end_B - 1, np.cumsum(end_B - start_B)[:, None] - 1, int(end_B.max()))


def prefill(weights: LlamaModel, rows: KVCache, part: PrefillPass) -> torch.Tensor:
    """Run the tokens of a pass; return the last layer's output after each prompt, (prompts, width).

    Of all other tokens the last layer computes only keys and values.

    Args:
        rows: the cache, to which keys and values are added.
    """
    device = weights.device
    row_M, position_M, from_M, position_N, place_N, ids_N = (
        torch.from_numpy(array).to(device)
        for array in (part.row_M, part.position_M, part.from_M, part.position_N, part.place_N, part.ids_N)
    )
    tiles = [_Tile(weights, bucket) for bucket in part.buckets]
    # `index_select` takes a fraction of the time of indexing with a tensor.
    x_N = weights.embed.index_select(0, ids_N)
    cos_N, sin_N = weights.cos.index_select(0, position_N), weights.sin.index_select(0, position_N)
    for layer, (keys, values) in zip(weights.layers, rows.layers, strict=True):
        q, k, v = layer.project(x_N, cos_N, sin_N)
        keys[row_M, :, position_M] = k.index_select(0, from_M)
        values[row_M, :, position_M] = v.index_select(0, from_M)
        if layer is weights.layers[-1]:
            tile = _Tile(weights, part.last)
            x_N, mixed = x_N.index_select(0, tile.query), tile.attend(q, keys, values)
        else:
            mixed = torch.cat([tile.attend(q, keys, values) for tile in tiles]).index_select(0, place_N)
        x_N = layer.finish(x_N, mixed)
    return x_N


class _Tile:
    """The attention of one bucket."""

    def __init__(self, weights: LlamaModel, bucket: PrefillBucket) -> None:
        device = weights.device
        self.row_B = torch.from_numpy(bucket.row_B).to(device)
        self.together = bool((np.diff(bucket.row_B) == 1).all())  # then keys are read in place
        self.first, self.end = int(bucket.row_B[0]), bucket.end
        self.query = torch.from_numpy(bucket.query_BQ.ravel()).to(device)
        position_BQ = torch.from_numpy(bucket.start_B[:, None] + np.arange(bucket.query_BQ.shape[1])).to(device)
        self.mask = causal_mask(position_BQ, bucket.end, weights.heads // weights.groups, weights.dtype)

    def attend(self, q_N: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return the attention output of all queries, (B * Q, heads * head)."""
        q = q_N.index_select(0, self.query).unflatten(0, (len(self.row_B), -1))
        return attention(q, self._rows(keys), self._rows(values), self.mask)

    def _rows(self, cached: torch.Tensor) -> torch.Tensor:
        seen = cached[:, :, : self.end]
        return seen[self.first : self.first + len(self.row_B)] if self.together else seen.index_select(0, self.row_B)

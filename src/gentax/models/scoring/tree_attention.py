"""Tree attention: attention over a batch in which shared prefixes appear once, registered with transformers.

A batch is one row of distinct tokens (see `batch.py`), each of which attends to its own prefix. Queries are cut into
tiles of consecutive tokens of one sequence; a tile attends to the keys of that sequence up to its own end, and tiles of
similar length are one product. Layers with a sliding window have tiles of their own, whose keys begin at the first
query's window. In bf16 on a CPU the products are written out below, with their gradient: PyTorch's fused kernel is made
for long sequences and is several times slower.

Dimensions: N tokens, G groups of R heads that share keys, D head width; B tiles of Q queries and K keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

NAME = "gentax_tree"
QUERIES = 64  # in a tile
KEYS = 64  # and its keys are a multiple of it
# Beyond this a score in bf16 is off by up to an eighth. Where attention is saturated, as that of Gemma 3 to its first
# token is, gradients are then mostly noise: of the first 16 pairs of a warm-up their cosine to those of fp32 was 0.12.
MAX_BF16_SCORE = 32.0
UNSUPPORTED_KWARGS = ("softcap", "s_aux", "head_mask", "position_bias")  # of attention functions
_TREE_ACTIVE: ContextVar[bool] = ContextVar("tree attention active", default=False)
# Numbers of tiles computed at once: few shapes, since each is compiled.
TILES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tiles with the same number of keys. Indices are into the N tokens of the batch; N itself is padding."""

    query_BQ: torch.Tensor  # int64
    key_BK: torch.Tensor  # int64
    seen: int  # leading keys that all queries attend to
    hidden_BQK: torch.Tensor  # bf16, -inf where masked; of the keys from `seen` on

    def to(self, device: Any) -> Tiles:
        return Tiles(self.query_BQ.to(device), self.key_BK.to(device), self.seen, self.hidden_BQK.to(device))


@dataclass(frozen=True, slots=True)
class TreeAttention:
    """The tiles of a batch, and the index of each token among their concatenated queries."""

    tiles: tuple[Tiles, ...]
    place_N: torch.Tensor  # int64
    windowed: dict[int, TreeAttention] = field(default_factory=dict)  # by window, where it is shorter than a sequence

    def to(self, device: Any) -> TreeAttention:
        windowed = {window: one.to(device) for window, one in self.windowed.items()}
        return TreeAttention(tuple(tile.to(device) for tile in self.tiles), self.place_N.to(device), windowed)


def build_tree(
    paths: Sequence[np.ndarray],
    asking: Sequence[np.ndarray],
    size: int,
    queries: int = QUERIES,
    keys: int = KEYS,
    windows: Sequence[int] = (),
) -> TreeAttention:
    """Cut sequences into tiles.

    Args:
        paths: for each sequence, the indices of its tokens in the batch.
        asking: for each, the ascending positions of its query tokens. The output of other tokens is undefined.
        size: N, tokens in the batch with padding.
        queries: tokens in a tile.
        keys: the keys of a tile are padded to a multiple of it.
        windows: sliding windows of some layers: a token and those right before it.
    """
    longest = max(map(len, paths), default=0)
    whole = _tiled(paths, asking, size, queries, keys, None)
    whole.windowed.update({w: _tiled(paths, asking, size, queries, keys, w) for w in windows if w < longest})
    return whole


def _tiled(
    paths: Sequence[np.ndarray], asking: Sequence[np.ndarray], size: int, queries: int, keys: int, window: int | None
) -> TreeAttention:
    cuts: dict[int, list[tuple[np.ndarray, np.ndarray, int]]] = {}  # number of keys -> (path, positions, first key)
    for path, positions in zip(paths, asking, strict=True):
        for first in range(0, len(positions), queries):
            part = positions[first : first + queries]
            start = 0 if window is None else max(0, int(part[0]) - window + 1)
            cuts.setdefault(-(-(int(part[-1]) + 1 - start) // keys) * keys, []).append((path, part, start))
    place_N = np.zeros(size, np.int64)
    tiles = []
    laid = 0
    for wide, group in sorted(cuts.items()):
        for first in range(0, len(group), TILES[-1]):
            part = group[first : first + TILES[-1]]
            count = next(n for n in TILES if n >= len(part))
            seen = min(int(at[0]) for _, at, _ in part) if window is None else 0
            query_BQ = np.full((count, queries), size, np.int64)
            key_BK = np.full((count, wide), size, np.int64)
            position_BQ = np.full((count, queries), seen, np.int64)  # counted from the first key
            for b, (path, at, start) in enumerate(part):
                query_BQ[b, : len(at)] = path[at]
                position_BQ[b, : len(at)] = at - start
                key_BK[b, : at[-1] + 1 - start] = path[start : at[-1] + 1]
                place_N[path[at]] = laid + b * queries + np.arange(len(at))
            laid += count * queries
            unseen_BQK = np.arange(seen, wide) > position_BQ[:, :, None]
            if window is not None:
                unseen_BQK |= np.arange(wide) <= position_BQ[:, :, None] - window
            unseen = torch.from_numpy(unseen_BQK)
            hidden_BQK = torch.zeros(unseen.shape, dtype=torch.bfloat16).masked_fill_(unseen, float("-inf"))
            tiles.append(Tiles(torch.from_numpy(query_BQ), torch.from_numpy(key_BK), seen, hidden_BQK))
    return TreeAttention(tuple(tiles), torch.from_numpy(place_N))


@contextmanager
def without_attention_mask() -> Iterator[None]:
    """Let models with tree attention build no mask: the tree replaces it."""
    token = _TREE_ACTIVE.set(True)
    try:
        yield
    finally:
        _TREE_ACTIVE.reset(token)


def use_tree_attention(model: Any) -> None:
    """Make `model` use tree attention when it is given a `tree`; without one it attends causally."""
    if model.config._attn_implementation == NAME:
        return
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    def mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
        return None if _TREE_ACTIVE.get() else sdpa_mask(*args, **kwargs)

    AttentionInterface.register(NAME, tree_attention_forward)
    AttentionMaskInterface.register(NAME, mask)
    model.set_attn_implementation(NAME)


def tree_attention_forward(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    tree: TreeAttention | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend. Shapes: query (1, G * R, N, D), key and value (1, G, N, D); returned: (1, N, G * R, D).

    Raises:
        ValueError: the model needs an option that is not supported (`UNSUPPORTED_KWARGS`).
    """
    for what in UNSUPPORTED_KWARGS:
        if options.get(what) is not None:
            raise ValueError(f"its attention needs {what}")
    heads, groups, width = query.shape[1], key.shape[1], query.shape[3]
    scaling = width**-0.5 if scaling is None else scaling
    if tree is None:
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attention_mask,
            is_causal=attention_mask is None and query.shape[2] > 1,
            scale=scaling,
            enable_gqa=heads != groups,
        )
        return mixed.transpose(1, 2).contiguous(), None
    tree = tree.windowed.get(sliding_window, tree) if sliding_window else tree
    query_GNRD = query[0].unflatten(0, (groups, heads // groups)).transpose(1, 2)
    low = _is_cpu_bf16(query)
    with torch.autocast(query.device.type, enabled=False):
        if low:
            mixed_GNRD = _Products.apply(query_GNRD * scaling, key[0], value[0], tree)
        else:
            mixed_GNRD = _fused(query_GNRD, key[0], value[0], tree, scaling)
    return mixed_GNRD.transpose(0, 1).flatten(1, 2)[None], None


def _is_cpu_bf16(query: torch.Tensor) -> bool:
    """Return whether this runs in bf16 on a CPU."""
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16
    return query.device.type == "cpu" and (autocast or query.dtype is torch.bfloat16)


def _fused(
    query_GNRD: torch.Tensor, key_GND: torch.Tensor, value_GND: torch.Tensor, tree: TreeAttention, scaling: float
) -> torch.Tensor:
    """Attend with PyTorch's kernel."""
    pad = (0, 0, 0, 1)
    query, key, value = F.pad(query_GNRD, (0, 0, *pad)), F.pad(key_GND, pad), F.pad(value_GND, pad)
    parts = []
    for tile in tree.tiles:
        mask = F.pad(tile.hidden_BQK == 0, (tile.seen, 0), value=True)
        mixed = F.scaled_dot_product_attention(
            _taken(query, tile.query_BQ).permute(1, 0, 3, 2, 4).flatten(1, 2),
            _taken(key, tile.key_BK).transpose(0, 1),
            _taken(value, tile.key_BK).transpose(0, 1),
            attn_mask=mask[:, None],
            scale=scaling,
            enable_gqa=True,
        )
        parts.append(mixed.unflatten(1, (len(key), -1)).permute(1, 0, 3, 2, 4).flatten(1, 2))
    return _taken(torch.cat(parts, dim=1), tree.place_N)


def _taken(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return x[:, index], with gradients that are summed in a fixed order.

    Those of indexing are not, on several threads, and a resumed run would differ in its last bits.
    """
    return x.index_select(1, index.flatten()).unflatten(1, index.shape)


class _Products(torch.autograd.Function):
    """Attention in bf16 by plain products, laid out (G * B, Q * R, K)."""

    @staticmethod
    def forward(
        ctx: Any, query_GNRD: torch.Tensor, key_GND: torch.Tensor, value_GND: torch.Tensor, tree: TreeAttention
    ) -> torch.Tensor:
        G, N, R, D = query_GNRD.shape
        # A row of zeros stands for padding: whatever is looked up there adds nothing.
        rows = [_rows(x) for x in (query_GNRD, key_GND, value_GND)]
        # By Cauchy-Schwarz, which costs next to nothing.
        large = float(query_GNRD.float().norm(dim=-1).max() * key_GND.float().norm(dim=-1).max()) > MAX_BF16_SCORE
        kept, parts = [], []
        for tile in tree.tiles:
            B, Q = tile.query_BQ.shape
            at_query, at_key = _at(tile.query_BQ, G, N), _at(tile.key_BK, G, N)
            q = rows[0].index_select(0, at_query).view(G * B, Q * R, D)
            k, v = (x.index_select(0, at_key).view(G * B, -1, D) for x in rows[1:])
            hidden = tile.hidden_BQK[:, :, None]
            scores = torch.bmm(q, k.transpose(1, 2))
            scores.view(G, B, Q, R, -1)[..., tile.seen :] += hidden
            if large:  # once more, as distances from each query's highest score: small where a weight is not
                scores = torch.baddbmm(-scores.amax(-1, keepdim=True), q, k.transpose(1, 2))
                scores.view(G, B, Q, R, -1)[..., tile.seen :] += hidden
            weights = scores.softmax(-1)
            parts.append(torch.bmm(weights, v).view(G, B * Q, R * D))
            kept.append((at_query, at_key, q, k, v, weights))
        ctx.kept, ctx.place_N = kept, tree.place_N
        mixed = torch.cat(parts, dim=1)
        return mixed.index_select(1, tree.place_N).view(G, N, R, D)

    @staticmethod
    def backward(ctx: Any, grad_GNRD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        G, N, R, D = grad_GNRD.shape
        grad = _rows(grad_GNRD)
        to_query = torch.zeros(G * (N + 1), R * D)
        at, of_value, of_key = [], [], []
        for at_query, at_key, q, k, v, weights in ctx.kept:
            out = grad.index_select(0, at_query).view(q.shape)
            to_weights = torch.bmm(out, v.transpose(1, 2))
            to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
            at.append(at_key)
            of_value.append(torch.bmm(weights.transpose(1, 2), out).flatten(0, 1))
            of_key.append(torch.bmm(to_scores.transpose(1, 2), q).flatten(0, 1))
            to_query.index_copy_(0, at_query, torch.bmm(to_scores, k).view(-1, R * D).float())
        to_key, to_value = (_summed(torch.cat(at), torch.cat(of), G * (N + 1)) for of in (of_key, of_value))
        query, key, value = (x.view(G, N + 1, -1)[:, :N] for x in (to_query, to_key, to_value))
        return query.view(G, N, R, D), key, value, None


def _rows(x: torch.Tensor) -> torch.Tensor:
    """Flatten (G, N, ...) to bf16 rows (G * (N + 1), width), with a row of zeros after each group."""
    wide = x.new_zeros(x.shape[0], x.shape[1] + 1, x[0, 0].numel(), dtype=torch.bfloat16)
    wide[:, :-1].view(x.shape).copy_(x)
    return wide.flatten(0, 1)


def _at(index: torch.Tensor, groups: int, N: int) -> torch.Tensor:
    """Return the row indices of all groups for indices within one."""
    return (index.flatten() + torch.arange(groups)[:, None] * (N + 1)).flatten()


def _summed(at: torch.Tensor, rows: torch.Tensor, size: int) -> torch.Tensor:
    """Sum rows by index in fp32: many tiles share a token, and bf16 would lose the small gradients of a sum."""
    return torch.zeros(size, rows.shape[1]).index_add_(0, at, rows.float())

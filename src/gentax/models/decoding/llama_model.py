"""A Llama-like model in arithmetic of our own: weights, layers, attention over cached keys, and the KV cache.

N tokens, packed or one per row; B rows of Q queries; G groups of R heads that share keys; K keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from transformers.cache_utils import DynamicCache

from gentax.core.episode import common_prefix_length
from gentax.models.device import context_length


class UnsupportedModel(ValueError):
    """A model that does something this arithmetic leaves out."""


class LlamaModel:
    """The weights of a model, with the projections of one input fused.

    Args:
        model: a Hugging Face causal model. Projections are fused in place: the module's parameters become views, so
            training the module is seen here without copying.

    Raises:
        UnsupportedModel: sliding windows, another activation, adapters, or unusual rotary embeddings. `select_decoder`
            finds what cannot be seen here by comparing log-probabilities.
    """

    def __init__(self, model: Any) -> None:
        config, body = model.config, model.get_decoder()
        if any(DynamicCache(config=config).is_sliding):
            raise UnsupportedModel("layers with a sliding window")
        self.device, self.dtype = model.device, model.dtype
        self.heads = config.num_attention_heads
        self.groups = config.num_key_value_heads or self.heads
        self.head = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.positions = context_length(config)
        self.embed, self.norm, self.out = body.embed_tokens.weight, body.norm.weight, model.get_output_embeddings()
        self.eps = config.rms_norm_eps
        self.layers = [LlamaLayer(layer, self) for layer in body.layers]
        self.rotary = body.rotary_emb
        self.cos, self.sin = self._rotate(torch.zeros(0, device=self.device))
        self._check_rotary()

    def reserve_positions(self, count: int) -> None:
        """Have rotary embeddings for positions up to `count`; for all that a model may have they would fill memory."""
        if count > len(self.cos):
            self.cos, self.sin = self._rotate(torch.arange(count, device=self.device))

    def _rotate(self, position_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what turns a head's halves a and b into (a cos - b sin, b cos + a sin): two tensors (N, 1, head)."""
        angles = torch.outer(position_N.float(), self.rotary.inv_freq.float())
        cos, sin = (f(angles) * self.rotary.attention_scaling for f in (torch.cos, torch.sin))
        halves = [cos, cos], [-sin, sin]
        cos, sin = (torch.cat(pair, dim=-1).to(self.dtype)[:, None] for pair in halves)
        return cos, sin

    def _check_rotary(self) -> None:
        """Compare with the model's own embedding at small and large positions."""
        at = torch.tensor([0, 1, self.positions // 2, self.positions - 1], device=self.device)
        cos, sin = self.rotary(torch.zeros(1, dtype=torch.float32, device=self.device), at[None])
        half = cos.shape[-1] // 2
        own_cos, own_sin = self._rotate(at)
        own = torch.cat([own_cos[:, 0], own_sin[:, 0, half:]], dim=-1).float()
        expected = torch.cat([cos[0], sin[0, :, half:]], dim=-1).float()
        if own.shape != expected.shape or (own - expected).abs().max() > 1e-2:
            raise UnsupportedModel("rotary embeddings")

    def logits(self, x_N: torch.Tensor) -> torch.Tensor:
        """Return the logits after the last layer, (N, vocabulary)."""
        return self.out(F.rms_norm(x_N, self.norm.shape, self.norm, self.eps))


class LlamaLayer:
    """One decoder layer."""

    def __init__(self, layer: Any, shape: LlamaModel) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        plain = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.down_proj)
        if any(type(linear) is not nn.Linear for linear in plain):  # adapters and quantised weights have other types
            raise UnsupportedModel("a projection that is no plain matrix")
        x = torch.linspace(-4, 4, 17, device=shape.device)
        if (mlp.act_fn(x) - F.silu(x)).abs().max() > 1e-4:
            raise UnsupportedModel("an activation that is not SiLU")
        self.qkv, self.qkv_bias = _fuse(attention.q_proj, attention.k_proj, attention.v_proj)
        self.o, self.gate, self.up, self.down = attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj
        self.norm, self.norm2 = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        self.q_norm = getattr(attention, "q_norm", None)
        self.k_norm = getattr(attention, "k_norm", None)
        self.heads, self.groups, self.head, self.eps = shape.heads, shape.groups, shape.head, shape.eps

    def project(self, x_N: torch.Tensor, cos_N: torch.Tensor, sin_N: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return queries (N, H, head), and keys and values (N, groups, head)."""
        h = F.linear(F.rms_norm(x_N, self.norm.shape, self.norm, self.eps), self.qkv, self.qkv_bias)
        qk, v = h.view(len(h), -1, self.head).split([self.heads + self.groups, self.groups], dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = qk.split([self.heads, self.groups], dim=1)
            qk = torch.cat([self.q_norm(q), self.k_norm(k)], dim=1)
        a, b = qk.chunk(2, dim=-1)
        qk = torch.addcmul(qk * cos_N, torch.cat([b, a], dim=-1), sin_N)
        return *qk.split([self.heads, self.groups], dim=1), v

    def finish(self, x_N: torch.Tensor, mixed_N: torch.Tensor) -> torch.Tensor:
        """Return the layer's output, given the attention output (N, H * head)."""
        x_N = _residual(x_N, self.o, mixed_N)
        h = F.rms_norm(x_N, self.norm2.shape, self.norm2, self.eps)
        return _residual(x_N, self.down, F.silu(self.gate(h), inplace=True).mul_(self.up(h)))


def _residual(x_N: torch.Tensor, linear: Any, h_N: torch.Tensor) -> torch.Tensor:
    """Return x + linear(h), in one product."""
    return torch.addmm(x_N if linear.bias is None else x_N + linear.bias, h_N, linear.weight.t())


def _fuse(*parts: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Copy the weights of linear modules into one tensor, of which their parameters become views."""
    weights, biases = ([getattr(part, name) for part in parts] for name in ("weight", "bias"))
    return _concatenated(weights), None if biases[0] is None else _concatenated(biases)


def _concatenated(tensors: list[torch.Tensor]) -> torch.Tensor:
    first = tensors[0].data
    size = (sum(len(t) for t in tensors), *first.shape[1:])
    ends = [t.data_ptr() + t.numel() * t.element_size() for t in tensors[:-1]]
    same = len({t.untyped_storage().data_ptr() for t in tensors}) == 1
    if same and ends == [t.data_ptr() for t in tensors[1:]]:
        return first.as_strided(size, first.stride())  # fused before, by another decoder of this model
    whole = torch.cat([t.data for t in tensors])
    for tensor, piece in zip(tensors, whole.split([len(t) for t in tensors]), strict=True):
        tensor.data = piece
    return whole


def attention(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Attention over cached keys. Heads that share keys count as further queries of one head: no key is repeated.

    Args:
        query: (B, Q, G * R, head).
        keys, values: (B, G, K, head).
        mask: of `causal_mask`.

    Returns:
        The attention output, (B * Q, G * R * head).
    """
    B, Q, _, head = query.shape
    groups = keys.shape[1]
    query = query.view(B, Q, groups, -1, head).transpose(1, 2).reshape(B, groups, -1, head)
    mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    return mixed.view(B, groups, Q, -1, head).transpose(1, 2).reshape(B * Q, -1)


def causal_mask(position_BQ: torch.Tensor, end: int, share: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive mask of queries at these positions over keys 0 to `end`: (B, 1, Q * R, K).

    Args:
        share: R, heads that share keys.
    """
    hidden = torch.arange(end, device=position_BQ.device) > position_BQ[:, :, None]
    mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))
    return mask[:, :, None].expand(-1, -1, share, -1).reshape(len(mask), 1, -1, end)


ROW_MULTIPLE, LENGTH_MULTIPLE = 8, 128  # the cache has a multiple of these


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values of B rows: two tensors (B, groups, length, head) for each layer."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]

    @property
    def count(self) -> int:
        return self.layers[0][0].shape[0]

    @property
    def length(self) -> int:
        return self.layers[0][0].shape[2]

    def first(self, count: int) -> KVCache:
        """Return a view of the first rows."""
        return KVCache([(keys[:count], values[:count]) for keys, values in self.layers])

    @property
    def bytes(self) -> int:
        return sum(x.numel() * x.itemsize for pair in self.layers for x in pair)

    def resized(self, count: int, length: int, keep: bool) -> KVCache:
        """Return a cache of `count` rows of `length` tokens, with these contents if `keep`.

        Each layer is freed as soon as it is copied, so memory never holds the cache twice. This one is empty after.
        """

        def copy(old: torch.Tensor) -> torch.Tensor:
            # Zeros, not whatever memory holds: a masked key has weight 0, and 0 times NaN is NaN.
            new = old.new_zeros(count, old.shape[1], length, old.shape[3])
            if keep:
                new[: len(old), :, : old.shape[2]] = old[:count]
            return new

        layers = []
        while self.layers:
            keys, values = self.layers.pop(0)
            layers.append((copy(keys), copy(values)))
        return KVCache(layers)

    def select_rows(self, rows: Sequence[int], length: int) -> KVCache:
        """Return a copy of some rows, up to `length`."""
        index = torch.tensor(rows, device=self.layers[0][0].device)
        return KVCache([tuple(x[:, :, :length].index_select(0, index) for x in pair) for pair in self.layers])

    def copy_from(self, row: int, start: int, end: int, source: KVCache, source_row: int) -> None:
        """Copy positions `start` to `end` of row `source_row` of `source` into `row`."""
        for target, origin in zip(self.layers, source.layers, strict=True):
            for to, of in zip(target, origin, strict=True):
                to[row, :, start:end] = of[source_row, :, start:end]


class SlotCache:
    """The rows of a KV cache by conversation (slot), and the tokens that each row holds.

    Args:
        layers: number of layers.
        like: a tensor (0, groups, 0, head) on the model's device and of its dtype.
        positions: the most tokens in a row.
    """

    def __init__(self, layers: int, like: torch.Tensor, positions: int) -> None:
        self.layers, self.like, self.positions = layers, like, positions
        self.rows = KVCache([(like, like)] * layers)
        self._row: dict[int, int] = {}
        self._ids: dict[int, np.ndarray] = {}

    def clear(self) -> None:
        """Forget the cached tokens. Rows are assigned anew, so a resumed run computes as an uninterrupted one."""
        self._ids.clear()
        self._row.clear()

    def free(self) -> None:
        """Forget the cached tokens and free their memory."""
        self.clear()
        self.rows.layers.clear()  # recorded graphs keep these tensors until others are recorded
        self.rows = KVCache([(self.like, self.like)] * self.layers)

    def assign_rows(self, slots: Sequence[int], length: int) -> list[int]:
        """Give every slot one of the first rows, with at least `length` positions; return the rows.

        Attention then reads them in place.
        """
        for slot in slots:
            self._row.setdefault(slot, len(self._row))
        count, have = -(-len(self._row) // ROW_MULTIPLE) * ROW_MULTIPLE, self.rows.length
        if count > self.rows.count or length > have:
            length = min(-(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, self.positions)
            # No more rows than are in use: many short ones were fine before, and would not be when they are long.
            self.rows = self.rows.resized(count, max(have, length) if self._ids else length, keep=bool(self._ids))
        requested = set(slots)
        idle = {row: slot for slot, row in self._row.items() if slot not in requested and row < len(slots)}
        for slot in slots:
            if (row := self._row[slot]) >= len(slots):
                place, idle_slot = idle.popitem()
                self._row[slot], self._row[idle_slot] = place, row
                self._ids.pop(idle_slot, None)
                self.rows.copy_from(place, 0, len(self._ids.get(slot, ())), self.rows, row)
        return [self._row[slot] for slot in slots]

    def cached_length(self, slot: int, prompt: np.ndarray) -> int:
        """Return how many leading tokens of `prompt` are cached in the slot's row; the last is always computed."""
        have = self._ids.get(slot)
        return 0 if have is None else min(common_prefix_length(have, prompt), len(prompt) - 1)

    def set_tokens(self, slot: int, ids: np.ndarray) -> None:
        """Record that the slot's row holds these tokens."""
        self._ids[slot] = ids

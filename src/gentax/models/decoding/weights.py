"""The weights of a Llama-like decoder, projections of one input fused, and what a layer does with them.

N tokens, packed or one a row; H heads, of which several share keys.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from transformers.cache_utils import DynamicCache

from gentax.models.positions import positions_of


class NotLean(ValueError):
    """A model that does something which this arithmetic leaves out."""


class Weights:
    """A view of a model's weights.

    Args:
        model: a Hugging Face causal model. Its projections are fused in place: the module's parameters become views,
            so that training the module is seen here without copying.

    Raises:
        NotLean: windows, another activation, adapters, or rotary embeddings that differ from a table of positions.
            What cannot be seen here is found by comparing log-probabilities; see `choose`.
    """

    def __init__(self, model: Any) -> None:
        config, body = model.config, model.get_decoder()
        if any(DynamicCache(config=config).is_sliding):
            raise NotLean("layers with a sliding window")
        self.device, self.dtype = model.device, model.dtype
        self.heads = config.num_attention_heads
        self.groups = config.num_key_value_heads or self.heads
        self.head = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.positions = positions_of(config)
        self.embed, self.norm, self.out = body.embed_tokens.weight, body.norm.weight, model.get_output_embeddings()
        self.eps = config.rms_norm_eps
        self.layers = [Layer(layer, self) for layer in body.layers]
        rotary = body.rotary_emb
        angles = torch.outer(torch.arange(self.positions, device=self.device).float(), rotary.inv_freq.float())
        cos, sin = (f(angles) * rotary.attention_scaling for f in (torch.cos, torch.sin))
        # A head's halves a and b turn into (a cos - b sin, b cos + a sin).
        self.cos = torch.cat([cos, cos], dim=-1).to(self.dtype)[:, None]
        self.sin = torch.cat([-sin, sin], dim=-1).to(self.dtype)[:, None]
        self._check_rotary(rotary)

    def _check_rotary(self, rotary: Any) -> None:
        """Compare the tables with the model's own embedding, near and far: a short prompt does not reach far."""
        at = torch.tensor([0, 1, self.positions // 2, self.positions - 1], device=self.device)
        cos, sin = rotary(torch.zeros(1, dtype=torch.float32, device=self.device), at[None])
        half = cos.shape[-1] // 2
        mine = torch.cat([self.cos[at, 0].float(), self.sin[at, 0, half:].float()], dim=-1)
        theirs = torch.cat([cos[0], sin[0, :, half:]], dim=-1).float()
        if mine.shape != theirs.shape or (mine - theirs).abs().max() > 1e-2:
            raise NotLean("rotary embeddings")

    def logits(self, x_N: torch.Tensor) -> torch.Tensor:
        """Return the logits after the last layer, (N, vocabulary)."""
        return self.out(F.rms_norm(x_N, self.norm.shape, self.norm, self.eps))


class Layer:
    """The weights of one layer."""

    def __init__(self, layer: Any, shape: Weights) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        plain = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.down_proj)
        if any(type(linear) is not nn.Linear for linear in plain):  # adapters and quantised weights are of other types
            raise NotLean("a projection that is no plain matrix")
        x = torch.linspace(-4, 4, 17, device=shape.device)
        if (mlp.act_fn(x) - F.silu(x)).abs().max() > 1e-4:
            raise NotLean("an activation that is not SiLU")
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
        """Return what the layer hands on, given the mixed values (N, H * head)."""
        x_N = _added(x_N, self.o, mixed_N)
        h = F.rms_norm(x_N, self.norm2.shape, self.norm2, self.eps)
        return _added(x_N, self.down, F.silu(self.gate(h), inplace=True).mul_(self.up(h)))


def _added(x_N: torch.Tensor, linear: Any, h_N: torch.Tensor) -> torch.Tensor:
    """Return x + linear(h), in one product."""
    return torch.addmm(x_N if linear.bias is None else x_N + linear.bias, h_N, linear.weight.t())


def _fuse(*parts: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Lay the weights of linear modules into one tensor, of which their parameters become views."""
    weights, biases = ([getattr(part, name) for part in parts] for name in ("weight", "bias"))
    return _joined(weights), None if biases[0] is None else _joined(biases)


def _joined(tensors: list[torch.Tensor]) -> torch.Tensor:
    first = tensors[0].data
    size = (sum(len(t) for t in tensors), *first.shape[1:])
    ends = [t.data_ptr() + t.numel() * t.element_size() for t in tensors[:-1]]
    same = len({t.untyped_storage().data_ptr() for t in tensors}) == 1
    if same and ends == [t.data_ptr() for t in tensors[1:]]:
        return first.as_strided(size, first.stride())  # joined before, by another decoder of the same model
    whole = torch.cat([t.data for t in tensors])
    for tensor, piece in zip(tensors, whole.split([len(t) for t in tensors]), strict=True):
        tensor.data = piece
    return whole

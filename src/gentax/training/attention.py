"""Causal attention for learning on a CPU in bf16, registered with transformers under the name "gentax_cpu".

PyTorch's fused CPU kernel is made for long sequences in fp32; on many short ones in bf16 the plain products take a
fraction of its time. Everything else (GPUs, fp32, long sequences) is left to PyTorch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

NAME = "gentax_cpu"
LONGEST = 640  # tokens; beyond it the T x T products cost more than the fused kernel


def use_fast_attention(model: Any) -> None:
    """Let `model` attend through this file. Only for batches padded on the right, which need no mask."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)
    model.set_attn_implementation(NAME)


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally. Shapes: query (B, heads, T, head), key and value (B, groups, T, head)."""
    T = query.shape[2]
    low = query.dtype is torch.bfloat16 or (
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16
    )
    if query.device.type == "cpu" and low and T <= LONGEST and key.shape[2] == T:
        with torch.autocast("cpu", enabled=False):
            mixed = _products(query.bfloat16(), key.bfloat16(), value.bfloat16(), scaling)
        return mixed.transpose(1, 2).contiguous(), None
    mixed = F.scaled_dot_product_attention(
        query, key, value, is_causal=T > 1, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return mixed.transpose(1, 2).contiguous(), None


def _products(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None) -> torch.Tensor:
    B, H, T, D = query.shape
    G = key.shape[1]
    # The heads of a group share keys: one product for all of them.
    together = (query * (D**-0.5 if scaling is None else scaling)).reshape(B, G, H // G * T, D)
    scores = (together @ key.transpose(-1, -2)).view(B, G, H // G, T, T)
    future = torch.full((T, T), float("-inf"), dtype=scores.dtype).triu(1)
    weights = (scores + future).softmax(-1).view(B, G, H // G * T, T)
    return (weights @ value).view(B, H, T, D)

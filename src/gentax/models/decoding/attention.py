"""Attention of new tokens over cached keys.

B rows of Q queries, R heads that share keys, K keys.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812


def attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Attend. Shapes: query (B, Q, G * R, head), keys and values (B, G, K, head), mask from `causal`.

    Heads that share keys are further queries of one head: no key is repeated, on any device.

    Returns:
        The mixed values, (B * Q, G * R * head).
    """
    B, Q, _, head = query.shape
    groups = keys.shape[1]
    query = query.view(B, Q, groups, -1, head).transpose(1, 2).reshape(B, groups, -1, head)
    mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    return mixed.view(B, groups, Q, -1, head).transpose(1, 2).reshape(B * Q, -1)


def causal(position_BQ: torch.Tensor, end: int, share: int, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to the scores of queries at these positions and keys 0 to `end`: (B, 1, Q * R, K).

    Args:
        share: R, heads that share keys.
    """
    hidden = torch.arange(end, device=position_BQ.device) > position_BQ[:, :, None]
    mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))
    return mask[:, :, None].expand(-1, -1, share, -1).reshape(len(mask), 1, -1, end)

"""Whether a model can be learned as it plays: the tree of beginnings must score as the model itself does.

`batch.score` runs the body of a model with attention of its own and the head by itself. What an architecture does
beyond that (a window of attention, soft caps, a recurrent state, scaled logits) would be missing from what is learned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gentax.core import UsageError
from gentax.models.scoring.batch import batches, score
from gentax.models.scoring.tree_attention import NAME

CLOSE = {torch.float32: 1e-3}  # of log-probabilities
ROUNDED = 0.2  # in other formats: bf16 rounds the log-probability of a likely token by a few hundredths


@torch.no_grad()
def refuse_unlike(model: Any) -> None:
    """Raise UsageError for a model that would be learned otherwise than it plays.

    Args:
        model: a causal model of transformers. It attends through `attention.py` from now on.
    """
    config = model.config.get_text_config()
    kind = config.model_type
    window = getattr(config, "sliding_window", None)
    limit = getattr(config, "max_position_embeddings", None) or float("inf")
    if window is not None and window < limit and getattr(config, "use_sliding_window", True):
        raise UsageError(f"{kind} attends to a window of {window} tokens, which training here does not know")
    if any(getattr(config, f"{what}_logit_softcapping", None) for what in ("attn", "final")):
        raise UsageError(f"{kind} caps its logits, which training here does not know")
    rng = np.random.default_rng(0)
    head = rng.integers(0, config.vocab_size, 9)
    ids = [np.concatenate([head, rng.integers(0, config.vocab_size, n)]).astype(np.int32) for n in (5, 8)]
    plain = [
        model(torch.from_numpy(one[None].astype(np.int64)).to(model.device)).logits[0].float().log_softmax(-1)
        for one in ids
    ]
    try:
        for batch in batches(ids, [np.ones(len(one), bool) for one in ids]):
            mine_S = batch.said(score(model, batch, "fp32").log_softmax(-1))
            theirs_S = torch.cat([plain[i][torch.arange(len(ids[i]) - 1), ids[i][1:]] for i in batch.members])
            off = float((mine_S - theirs_S).abs().max())
    except (AttributeError, TypeError, RuntimeError, ValueError) as fault:
        raise UsageError(f"models of type {kind} cannot be trained here: {str(fault).splitlines()[0]}") from fault
    if model.config._attn_implementation != NAME or not off < CLOSE.get(model.dtype, ROUNDED):
        raise UsageError(f"models of type {kind} cannot be trained here: they attend or score in a way of their own")

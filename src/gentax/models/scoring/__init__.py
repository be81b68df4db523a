"""Score token sequences with a causal model, for training and KL: as a prefix tree where that is exact, else in padded
rows.

The prefix tree computes each distinct prefix once, but with attention of its own, so an architecture's soft caps,
attention sinks, recurrent states or convolutions would be missing. Either method is therefore compared with the model's
own forward pass before it is used, in fp32: bf16 alone moves log-probabilities of unlikely tokens by tenths (0.1 to
0.15 on average in Gemma 3 270M), as much as a bug might.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from gentax.core import UsageError
from gentax.models.device import long_rope_threshold, upcast_to_fp32
from gentax.models.scoring.batch import ScoringBatch, padded_batches, tree_batches
from gentax.models.scoring.logprobs import hidden_states, state_logits, token_kl, token_logprobs
from gentax.models.scoring.tree_attention import use_tree_attention

__all__ = [
    "ScoringBatch",
    "hidden_states",
    "make_batches",
    "scoring_method",
    "sequence_kl",
    "state_logits",
    "token_kl",
    "token_logprobs",
]

TREE, PADDED = "tree", "padded"
MAX_ERROR = 1e-3  # error of log-probabilities at the worst token
MAX_MEAN_ERROR_QUANTIZED = 0.5  # mean error for quantised weights, which cannot be computed in fp32
FAULTS = (AttributeError, IndexError, KeyError, TypeError, RuntimeError, ValueError)
LAYERS = {"full_attention", "sliding_attention"}  # supported by tree attention


def scoring_method(model: Any) -> str:
    """Return `tree` or `padded`, determined once for a model and its copies.

    A model that is scored as a tree uses tree attention from then on.

    Raises:
        UsageError: neither method gives the model's own log-probabilities.
    """
    method = getattr(model, "gentax_scoring", None)
    if method is None:
        # A plain attribute, so that copies of the model have it too: those that are trained may be sharded.
        method = model.gentax_scoring = _determine_method(model)
    return method


def make_batches(model: Any, ids: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> list[ScoringBatch]:
    """Group sequences into batches that `model`, or one of the same architecture, can score.

    Args:
        model: a causal model of transformers.
        ids: token ids of each sequence.
        wanted: for each, a boolean mask of the tokens to score; the first token cannot be scored.

    Raises:
        UsageError: see `scoring_method`.
    """
    return _batches(scoring_method(model), model, ids, wanted)


@torch.no_grad()
def sequence_kl(
    start: Any, model: Any, ids: Sequence[np.ndarray], sampled: Sequence[np.ndarray], precision: str = "fp32"
) -> np.ndarray:
    """Return KL(start || model) of each sequence's sampled tokens, in nats: float64, shape (sequences,).

    The KL of a reply is the sum over its tokens (chain rule). A sequence's first token is not predicted and not
    counted.

    Args:
        start, model, precision: see `token_kl`.
        ids: token ids of each sequence.
        sampled: for each, a boolean mask of the tokens that the starting policy sampled at temperature 1.
    """
    nats_S = np.zeros(len(ids))
    for batch in make_batches(start, ids, sampled):
        kl_T = token_kl(start, model, batch, precision).double().cpu().numpy()[batch.state_index_S.numpy()]
        counts = [int(sampled[member][1:].sum()) for member in batch.sequences]
        ends = np.cumsum(counts)
        for member, count, end in zip(batch.sequences, counts, ends, strict=True):
            nats_S[member] = kl_T[end - count : end].sum()
    return nats_S


def _batches(method: str, model: Any, ids: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> list[ScoringBatch]:
    parts = [list(range(len(ids)))]
    limit = long_rope_threshold(model.config)
    if limit is not None:
        parts = [[i for i in parts[0] if (len(ids[i]) > limit) is longer] for longer in (False, True)]
    batches: list[ScoringBatch] = []
    for longer, part in enumerate(parts):
        part_ids, masks = [ids[i] for i in part], [wanted[i] for i in part]
        if method == TREE:
            part_batches = tree_batches(part_ids, masks, _windows(model))
        else:
            part_batches = padded_batches(part_ids, masks, limit if limit is not None and not longer else 1 << 62)
        for batch in part_batches:
            batch.sequences[:] = [part[i] for i in batch.sequences]
        batches += part_batches
    return batches


@torch.no_grad()
def _determine_method(model: Any) -> str:
    """Compare both methods with the model's own forward pass."""
    if getattr(model.config, "quantization_config", None) is not None:
        return _compare(model, lambda off_S: float(off_S.mean()) < MAX_MEAN_ERROR_QUANTIZED)
    with upcast_to_fp32(model):
        return _compare(model, lambda off_S: float(off_S.max()) < MAX_ERROR)


def _compare(model: Any, near: Callable[[torch.Tensor], bool]) -> str:
    config = model.config.get_text_config()
    rng = np.random.default_rng(0)
    stem = rng.integers(0, config.vocab_size, 9)
    tails = (5, 8, max((0, *_windows(model))) + 12)
    limit = getattr(config, "max_position_embeddings", None) or 1 << 62
    ids = [np.concatenate([stem, rng.integers(0, config.vocab_size, n)])[:limit].astype(np.int32) for n in tails]
    wanted = [np.arange(len(sequence)) >= len(sequence) - 8 for sequence in ids]  # a long sequence has large logits
    try:
        own = [_own_logprobs(model, sequence, int(mask.sum())) for sequence, mask in zip(ids, wanted, strict=True)]
    except FAULTS as error:
        raise UsageError(f"the model of type {config.model_type} does not run: {_line(error)}") from error
    attention = model.config._attn_implementation
    reason = "their attention or logits differ"
    for method in (TREE, PADDED) if _may_use_tree(model) else (PADDED,):
        try:
            if method == TREE:
                use_tree_attention(model)
            off = [
                token_logprobs(model, batch, "fp32").logprob_S.cpu() - torch.cat([own[i] for i in batch.sequences])
                for batch in _batches(method, model, ids, wanted)
            ]
            if near(torch.cat(off).abs()):
                return method
        except FAULTS as error:
            reason = _line(error)
        if method == TREE and model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)
    raise UsageError(f"models of type {config.model_type} cannot be scored here: {reason}")


def _own_logprobs(model: Any, ids_T: np.ndarray, last: int) -> torch.Tensor:
    """Return the last tokens' log-probabilities by the model's own forward pass, fp32, on the CPU."""
    inputs = {"input_ids": torch.from_numpy(ids_T[None].astype(np.int64)).to(model.device)}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        inputs["logits_to_keep"] = last + 1
    logits_TV = model(**inputs, use_cache=False).logits[0, -last - 1 : -1].float()
    tokens = torch.from_numpy(ids_T[-last:].astype(np.int64)).to(model.device)
    return logits_TV.log_softmax(-1).gather(1, tokens[:, None])[:, 0].cpu()


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _may_use_tree(model: Any) -> bool:
    """Return whether the configuration has only what tree attention supports."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    replaceable = model._can_set_attn_implementation()  # else transformers would warn, and change nothing
    return replaceable and kinds <= LAYERS and not getattr(config, "attention_chunk_size", None)


def _windows(model: Any) -> tuple[int, ...]:
    """Return the sliding window of a model's layers, if it is shorter than the context."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    limit = getattr(config, "max_position_embeddings", None) or 1 << 62
    used = getattr(config, "use_sliding_window", True)
    return (window,) if isinstance(window, int) and 0 < window < limit and used else ()

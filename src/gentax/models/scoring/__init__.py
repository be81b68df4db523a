"""Score token sequences with a causal model, for training and KL: as a prefix tree where that is exact, else in padded
rows.

The prefix tree computes each distinct prefix once, but with attention of its own, so an architecture's soft caps,
attention sinks, recurrent states or convolutions would be missing. Either method is therefore compared with the model's
own forward pass before it is used, in fp32: bf16 alone moves log-probabilities of unlikely tokens by tenths (0.1 to
0.15 on average in Gemma 3 270M), as much as a bug might.

Logits are computed from the last hidden states by the model's own code (scales, soft caps, biases), and only for the
states that predict a scored token. With a large vocabulary this is done in chunks that are recomputed in the backward
pass, since a step's logits would take more memory than all else (the idea of arXiv 2411.09009, without its kernels).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutputWithPast

from gentax.core import UsageError
from gentax.models.checkpoint_check import error_line
from gentax.models.device import autocast_context, forward_parameters, long_rope_threshold, upcast_to_fp32
from gentax.models.scoring.batch import ScoringBatch, padded_batches, tree_batches
from gentax.models.scoring.tree_attention import use_tree_attention

TREE, PADDED = "tree", "padded"
NO_LIMIT = 1 << 62  # of tokens
MAX_ERROR = 1e-3  # error of log-probabilities at the worst token
MAX_MEAN_ERROR_QUANTIZED = 0.5  # mean error for quantised weights, which cannot be computed in fp32
FAULTS = (AttributeError, IndexError, KeyError, TypeError, RuntimeError, ValueError)
MAX_WINDOW = 8192  # of tree attention: a comparison has to exceed it
LAYERS = {"full_attention", "sliding_attention"}  # supported by tree attention
CHUNK = {"cpu": 1 << 24}  # logits at once; some six numbers are kept for each
LARGE_CHUNK = 1 << 26  # on a GPU, which needs large products
LARGE_HEAD = 1 << 24  # weights; a head this large is worth the body's precision


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


def _batches(method: str, model: Any, ids: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> list[ScoringBatch]:
    limit = long_rope_threshold(model.config) or NO_LIMIT
    batches: list[ScoringBatch] = []
    for longer in (False, True):
        part = [i for i, sequence in enumerate(ids) if (len(sequence) > limit) is longer]
        given = [ids[i] for i in part], [wanted[i] for i in part]
        if method == TREE:
            made = tree_batches(*given, _windows(model))
        else:
            made = padded_batches(*given, NO_LIMIT if longer else limit)
        for batch in made:
            batch.sequences[:] = [part[i] for i in batch.sequences]
        batches += made
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
    tails = (5, 8, min(max((0, *_windows(model))), MAX_WINDOW) + 12)
    limit = getattr(config, "max_position_embeddings", None) or NO_LIMIT
    ids = [np.concatenate([stem, rng.integers(0, config.vocab_size, n)])[:limit].astype(np.int32) for n in tails]
    wanted = [np.arange(len(sequence)) >= len(sequence) - 8 for sequence in ids]  # a long sequence has large logits
    try:
        own = [_own_logprobs(model, sequence, int(mask.sum())) for sequence, mask in zip(ids, wanted, strict=True)]
    except FAULTS as error:
        raise UsageError(f"the model of type {config.model_type} does not run: {error_line(error)}") from error
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
            reason = error_line(error)
        if method == TREE and model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)
    raise UsageError(f"models of type {config.model_type} cannot be scored here: {reason}")


def _own_logprobs(model: Any, ids_T: np.ndarray, last: int) -> torch.Tensor:
    """Return the last tokens' log-probabilities by the model's own forward pass, fp32, on the CPU."""
    inputs: dict[str, Any] = {"input_ids": torch.from_numpy(ids_T[None].astype(np.int64)).to(model.device)}
    if "logits_to_keep" in forward_parameters(model):
        inputs["logits_to_keep"] = last + 1
    logits_TV = model(**inputs, use_cache=False).logits[0, -last - 1 : -1].float()
    tokens = torch.from_numpy(ids_T[-last:].astype(np.int64)).to(model.device)
    return logits_TV.log_softmax(-1).gather(1, tokens[:, None])[:, 0].cpu()


def _may_use_tree(model: Any) -> bool:
    """Return whether the configuration has only what tree attention supports."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    replaceable = model._can_set_attn_implementation()  # else transformers would warn, and change nothing
    windows = max((0, *_windows(model))) <= MAX_WINDOW
    return replaceable and windows and kinds <= LAYERS and not getattr(config, "attention_chunk_size", None)


def _windows(model: Any) -> tuple[int, ...]:
    """Return the sliding window of a model's layers, if it is shorter than the context."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    limit = getattr(config, "max_position_embeddings", None) or NO_LIMIT
    used = getattr(config, "use_sliding_window", True)
    return (window,) if isinstance(window, int) and 0 < window < limit and used else ()


class TokenScores(NamedTuple):
    """The result of `token_logprobs`."""

    logprob_S: torch.Tensor  # of the batch's tokens
    entropy_U: torch.Tensor | None  # of the distributions after its states, in nats


def hidden_states(model: Any, batch: ScoringBatch, precision: str) -> torch.Tensor:
    """Return the body's last hidden states at `batch.state_U`: shape (U, width).

    Args:
        model: a causal model of transformers.
        batch: of `make_batches`, for a model of this architecture.
        precision: of the arithmetic (see `autocast_context`).
    """
    with autocast_context(precision, model.device):
        return batch.hidden(model)


def state_logits(model: Any, batch: ScoringBatch, precision: str) -> torch.Tensor:
    """Return the logits after each state of `batch.state_U`: fp32, (U, vocabulary). `token_logprobs` takes less memory.

    Arguments as in `hidden_states`.
    """
    return logits(model, hidden_states(model, batch, precision), precision)


def token_logprobs(
    model: Any, batch: ScoringBatch, precision: str, temperature: float = 1.0, *, entropy: str = "none"
) -> TokenScores:
    """Return the log-probabilities of the batch's tokens, fp32, with gradient.

    Args:
        model, batch, precision: see `hidden_states`.
        temperature: of the distribution.
        entropy: `none`, `value`, or `gradient` for entropies that are differentiated too.
    """

    def of(state_CW: torch.Tensor, at_P: torch.Tensor, token_P: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits_CV = logits(model, state_CW, precision)
        all_CV = torch.log_softmax(logits_CV if temperature == 1 else logits_CV / temperature, dim=-1)
        logprob_P = all_CV.flatten().index_select(0, at_P * all_CV.shape[1] + token_P)
        if entropy == "none":
            return logprob_P, logprob_P.new_zeros(0)
        with nullcontext() if entropy == "gradient" else torch.no_grad():
            return logprob_P, -(all_CV.exp() * all_CV).sum(dim=-1)

    state_UW = hidden_states(model, batch, precision)
    device = state_UW.device
    logprobs, entropies, order = [], [], []
    for first, last in _chunks(model, state_UW):
        inside = torch.nonzero((batch.state_index_S >= first) & (batch.state_index_S < last)).flatten()
        at_P, token_P = (batch.state_index_S[inside] - first).to(device), batch.token_S[inside].to(device)
        whole = last - first == len(state_UW)
        part = of(state_UW, at_P, token_P) if whole else _checkpointed(of, state_UW[first:last], at_P, token_P)
        order.append(inside)
        logprobs.append(part[0])
        entropies.append(part[1])
    logprob_S = (
        logprobs[0]
        if len(logprobs) == 1
        else torch.cat(logprobs).index_select(0, torch.cat(order).argsort().to(device))
    )
    return TokenScores(logprob_S, None if entropy == "none" else torch.cat(entropies))


def token_kl(start: Any, model: Any, batch: ScoringBatch, precision: str) -> torch.Tensor:
    """Return KL(start || model) in nats at each state of `batch.state_U`: fp32, (U,), with `model`'s gradient.

    Args:
        start: a causal model; no gradient flows to it.
        model: another one with the same vocabulary.
        batch, precision: see `hidden_states`.
    """

    def of(state_CW: torch.Tensor, start_CW: torch.Tensor) -> torch.Tensor:
        now_CV = torch.log_softmax(logits(model, state_CW, precision), dim=-1)
        with torch.no_grad():
            start_CV = torch.log_softmax(logits(start, start_CW, precision), dim=-1).to(now_CV.device)
        return (start_CV.exp() * (start_CV - now_CV)).sum(-1)

    with torch.no_grad():
        start_UW = hidden_states(start, batch, precision)
    state_UW = hidden_states(model, batch, precision)
    parts = []
    for first, last in _chunks(model, state_UW):
        whole = last - first == len(state_UW)
        parts.append(of(state_UW, start_UW) if whole else _checkpointed(of, state_UW[first:last], start_UW[first:last]))
    return torch.cat(parts)


def logits(model: Any, state_UW: torch.Tensor, precision: str) -> torch.Tensor:
    """Return the logits, fp32, (U, vocabulary), of last hidden states.

    This runs the model's own forward pass with a body that returns these states.
    """
    weight = model.get_output_embeddings().weight
    # The number of states varies: a small head is not worth compiling for each.
    context = autocast_context(precision, weight.device) if weight.numel() >= LARGE_HEAD else nullcontext()
    with context, _body_returning(model, state_UW.to(weight.dtype)[None]):
        return model(input_ids=torch.zeros(1, len(state_UW), dtype=torch.int64, device=weight.device)).logits[0].float()


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


class _BodyOutput(BaseModelOutputWithPast):
    """A body's output. Fields that some kinds have (caches, routers) are None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@contextmanager
def _body_returning(model: Any, state_1UW: torch.Tensor) -> Iterator[None]:
    """Let the body of `model` return `state_1UW`, whatever it is given."""
    body, output = model.get_decoder(), _BodyOutput(last_hidden_state=state_1UW)
    own = vars(body).get("forward")
    body.forward = lambda *_, **__: output
    try:
        yield
    finally:
        del body.forward
        if own is not None:
            body.forward = own


def _chunks(model: Any, state_UW: torch.Tensor) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of each chunk of the states; at least one."""
    size = CHUNK.get(state_UW.device.type, LARGE_CHUNK)
    rows = max(1, size // model.config.get_text_config().vocab_size)
    for first in range(0, max(1, len(state_UW)), rows):
        yield first, min(first + rows, len(state_UW))


def _checkpointed(of: Callable[..., Any], *inputs: torch.Tensor) -> Any:
    """Compute a function now and again in the backward pass, so that nothing in between is kept."""
    if not torch.is_grad_enabled():
        return of(*inputs)
    return checkpoint(of, *inputs, use_reentrant=False, preserve_rng_state=False)

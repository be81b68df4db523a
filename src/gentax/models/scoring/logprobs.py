"""Log-probabilities, entropy and KL of a batch under a causal model.

Logits are computed from the last hidden states by the model's own code (scales, soft caps, biases), and only for the
states that predict a scored token. With a large vocabulary this is done in chunks that are recomputed in the backward
pass, since a step's logits would take more memory than all else (the idea of arXiv 2411.09009, without its kernels).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutputWithPast

from gentax.models.device import autocast_context
from gentax.models.scoring.batch import ScoringBatch

CHUNK = {"cpu": 1 << 24}  # logits at once; some six numbers are kept for each
LARGE_CHUNK = 1 << 26  # on a GPU, which needs large products
LARGE_HEAD = 1 << 24  # weights; a head this large is worth the body's precision


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


class _FixedBody(torch.nn.Module):
    """Stands in for a body and returns fixed hidden states; other attributes are the body's."""

    def __init__(self, body: Any, state_1UW: torch.Tensor) -> None:
        super().__init__()
        self.__dict__["body"] = body  # not a submodule: its parameters are not this module's
        self.answer = _BodyOutput(last_hidden_state=state_1UW)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["body"], name)

    def forward(self, *_: Any, **__: Any) -> _BodyOutput:
        return self.answer


class _BodyOutput(BaseModelOutputWithPast):
    """A body's output. Fields that some kinds have (caches, routers) are None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@contextmanager
def _body_returning(model: Any, state_1UW: torch.Tensor) -> Iterator[None]:
    """Replace the body of `model` by one that returns `state_1UW`."""
    body = model.get_decoder()
    parent, name = next(
        (parent, name) for parent in model.modules() for name, child in parent.named_children() if child is body
    )
    parent._modules[name] = _FixedBody(body, state_1UW)
    try:
        yield
    finally:
        parent._modules[name] = body


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

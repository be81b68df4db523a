"""What a causal model says of given tokens: log-probabilities, entropy and KL of a batch.

The way from the last hidden state to logits is the model's own code, with whatever it does there (scales, soft caps,
biases). It is taken only for the states that predict something. Where the vocabulary is large, it is taken for few of
them at a time, and once more in the backward pass instead of being kept: the logits of a step would take more memory
than all else (the idea of arXiv 2411.09009, without its kernels).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutputWithPast

from gentax.models.precision import autocast_context
from gentax.models.scoring.batch import ScoringBatch

CHUNK = {"cpu": 1 << 24}  # logits at once; some six numbers are held for each
LARGE_CHUNK = 1 << 26  # on a GPU, which needs large products
LARGE_HEAD = 1 << 24  # weights; a head with as many is worth the number format of the body


class TokenScores(NamedTuple):
    """What `token_logprobs` returns."""

    logprob_S: torch.Tensor  # of the batch's tokens
    entropy_U: torch.Tensor | None  # of the distributions after its states, in nats


def hidden_states(model: Any, batch: ScoringBatch, how: str) -> torch.Tensor:
    """Return the body's last hidden states at `batch.state_U`: shape (U, width).

    Args:
        model: a causal model of transformers.
        batch: of `batches`, for a model of this architecture.
        how: the number format of the arithmetic (see `autocast_context`).
    """
    with autocast_context(how, model.device):
        return batch.hidden(model)


def state_logits(model: Any, batch: ScoringBatch, how: str) -> torch.Tensor:
    """Return the logits of what follows each state of `batch.state_U`: fp32, shape (U, vocabulary). All of them at
    once; `token_logprobs` takes less memory. Arguments as in `hidden_states`."""
    return logits(model, hidden_states(model, batch, how), how)


def token_logprobs(
    model: Any, batch: ScoringBatch, how: str, temperature: float = 1.0, *, entropy: str = "none"
) -> TokenScores:
    """Return the log-probabilities of the batch's tokens, fp32, with gradient.

    Args:
        model, batch, how: see `hidden_states`.
        temperature: of the distribution.
        entropy: `none`, `value`, or `gradient`, when entropies are to be differentiated too.
    """

    def of(state_CW: torch.Tensor, at_P: torch.Tensor, token_P: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits_CV = logits(model, state_CW, how)
        all_CV = torch.log_softmax(logits_CV if temperature == 1 else logits_CV / temperature, dim=-1)
        said_P = all_CV.flatten().index_select(0, at_P * all_CV.shape[1] + token_P)
        if entropy == "none":
            return said_P, said_P.new_zeros(0)
        with nullcontext() if entropy == "gradient" else torch.no_grad():
            return said_P, -(all_CV.exp() * all_CV).sum(dim=-1)

    state_UW = hidden_states(model, batch, how)
    device = state_UW.device
    said, entropies, order = [], [], []
    for first, last in _chunks(model, state_UW):
        inside = torch.nonzero((batch.state_index_S >= first) & (batch.state_index_S < last)).flatten()
        at_P, token_P = (batch.state_index_S[inside] - first).to(device), batch.token_S[inside].to(device)
        whole = last - first == len(state_UW)
        part = of(state_UW, at_P, token_P) if whole else _again(of, state_UW[first:last], at_P, token_P)
        order.append(inside)
        said.append(part[0])
        entropies.append(part[1])
    logprob_S = said[0] if len(said) == 1 else torch.cat(said).index_select(0, torch.cat(order).argsort().to(device))
    return TokenScores(logprob_S, None if entropy == "none" else torch.cat(entropies))


def token_kl(start: Any, model: Any, batch: ScoringBatch, how: str) -> torch.Tensor:
    """Return KL(start || model) in nats at each state of `batch.state_U`: fp32, shape (U,), with `model`'s gradient.

    Args:
        start: a causal model of transformers; no gradient flows to it.
        model: another one with the same tokens.
        batch, how: see `hidden_states`.
    """

    def of(state_CW: torch.Tensor, start_CW: torch.Tensor) -> torch.Tensor:
        now_CV = torch.log_softmax(logits(model, state_CW, how), dim=-1)
        with torch.no_grad():
            start_CV = torch.log_softmax(logits(start, start_CW, how), dim=-1).to(now_CV.device)
        return (start_CV.exp() * (start_CV - now_CV)).sum(-1)

    with torch.no_grad():
        start_UW = hidden_states(start, batch, how)
    state_UW = hidden_states(model, batch, how)
    parts = []
    for first, last in _chunks(model, state_UW):
        whole = last - first == len(state_UW)
        parts.append(of(state_UW, start_UW) if whole else _again(of, state_UW[first:last], start_UW[first:last]))
    return torch.cat(parts)


def logits(model: Any, state_UW: torch.Tensor, how: str) -> torch.Tensor:
    """Return the model's logits, fp32, shape (U, vocabulary), for last hidden states of its body.

    It is the model's own forward pass, in which the body answers with these states.
    """
    weight = model.get_output_embeddings().weight
    # How many states there are varies: a small head is not worth compiling for each number.
    context = autocast_context(how, weight.device) if weight.numel() >= LARGE_HEAD else nullcontext()
    with context, _body_answers(model, state_UW.to(weight.dtype)[None]):
        return model(input_ids=torch.zeros(1, len(state_UW), dtype=torch.int64, device=weight.device)).logits[0].float()


class _Given(torch.nn.Module):
    """Stands in for a body and has its answer already; anything else it is asked for is the body's."""

    def __init__(self, body: Any, state_1UW: torch.Tensor) -> None:
        super().__init__()
        self.__dict__["body"] = body  # not as a part: its parameters are not this module's
        self.answer = _Answer(last_hidden_state=state_1UW)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["body"], name)

    def forward(self, *_: Any, **__: Any) -> _Answer:
        return self.answer


class _Answer(BaseModelOutputWithPast):
    """A body's output. What some kinds have beside the states (caches, routers) is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@contextmanager
def _body_answers(model: Any, state_1UW: torch.Tensor) -> Iterator[None]:
    """While this lasts, let the body of `model` answer with `state_1UW`."""
    body = model.get_decoder()
    parent, name = next(
        (parent, name) for parent in model.modules() for name, child in parent.named_children() if child is body
    )
    parent._modules[name] = _Given(body, state_1UW)
    try:
        yield
    finally:
        parent._modules[name] = body


def _chunks(model: Any, state_UW: torch.Tensor) -> Iterator[tuple[int, int]]:
    """Yield where each part of the states begins and ends; one part, where there is none."""
    size = CHUNK.get(state_UW.device.type, LARGE_CHUNK)
    rows = max(1, size // model.config.get_text_config().vocab_size)
    for first in range(0, max(1, len(state_UW)), rows):
        yield first, min(first + rows, len(state_UW))


def _again(of: Callable[..., Any], *given: torch.Tensor) -> Any:
    """Compute a function now, and once more in the backward pass: nothing between is kept."""
    if not torch.is_grad_enabled():
        return of(*given)
    return checkpoint(of, *given, use_reentrant=False, preserve_rng_state=False)

"""Fast sampling from causal models, on token ids alone.

`select_decoder` compares log-probabilities with the model's own forward pass and takes the fastest that agrees:

- `LlamaDecoder`: own arithmetic for Llama-like models. A row's KV cache is kept between calls, shared prefixes are
  computed once, prefill is packed without padding, finished rows leave the batch, projections are fused. On a CUDA
  device a decoding step is a recorded graph.
- `HFDecoder`: the model's own forward pass over a cache of attention and recurrent layers, with the same savings.
- `UncachedDecoder`: any other model, without a cache.

`vllm` decodes through vLLM in this process. Not supported: one model over several devices.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from gentax.core import UsageError
from gentax.models.checkpoint_check import error_line
from gentax.models.decoding.hf_decoder import HFDecoder
from gentax.models.decoding.llama_decoder import LLAMA_LIKE, LlamaDecoder
from gentax.models.decoding.sampling import ActiveRequest, StopCondition, check_lengths, sample_next
from gentax.models.device import context_length, forward_parameters
from gentax.models.options import Sample, SamplingParams, SamplingRequest

__all__ = ["LLAMA_LIKE", "Decoder", "HFDecoder", "LlamaDecoder", "UncachedDecoder", "select_decoder"]

# Mean error of log-probabilities, in nats. Wrong arithmetic is off by tenths; bfloat16 alone by hundredths, and by
# tenths where its last bit decides the routing to experts. `HFDecoder` runs the model's own modules, so its errors
# would be gross: a mask, a position or a state.
TOLERANCE = 2e-3
LOW_PRECISION_TOLERANCE = {LlamaDecoder: 0.1, HFDecoder: 0.5}
MAX_WINDOW_CHECKED = 256  # the check exceeds windows up to this long


class Decoder(Protocol):
    """The interface of all decoders."""

    max_length: int  # tokens of a prompt and its reply, at most

    def cache_bytes(self, tokens: int) -> int | None:
        """Return the bytes that a row of `tokens` tokens takes at most; None where the engine manages its memory."""
        ...

    @property
    def reserved_bytes(self) -> int:
        """Bytes that stay allocated for future rows after `clear_cache`."""
        ...

    def sample(self, requests: Sequence[SamplingRequest], stop: StopCondition) -> list[Sample]:
        """Continue every prompt until `stop(ids so far)` or until its uniforms are used up."""
        ...

    def clear_cache(self) -> None:
        """Forget the cached tokens, since the weights changed."""
        ...


def select_decoder(model: Any) -> Decoder:
    """Return the fastest decoder that agrees with `model.forward` on a few short conversations.

    Args:
        model: a Hugging Face causal model in evaluation mode.

    Raises:
        UsageError: logits that are not finite in the weights' dtype.
    """
    if model.dtype != torch.float32:
        _refuse_overflow(model)
    reason = ""
    for kind in (LlamaDecoder, HFDecoder) if model.config.model_type in LLAMA_LIKE else (HFDecoder,):
        try:
            decoder = kind(model)
            off = logprob_error(decoder, model)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the model lacks something this decoder needs; the next one needs less
            reason = error_line(error)
            continue
        if off <= (TOLERANCE if model.dtype == torch.float32 else LOW_PRECISION_TOLERANCE[kind]):
            decoder.clear_cache()
            return decoder
        reason = f"log-probabilities are off by {off:.3g} nats"
    warnings.warn(
        f"{model.config.model_type} models keep no cache that gentax can resume ({reason}): generation is slow",
        stacklevel=2,
    )
    return UncachedDecoder(model)


@torch.inference_mode()
def _refuse_overflow(model: Any) -> None:
    """Refuse a dtype in which the logits are not finite, as with Gemma 3 in float16."""
    try:
        logits = model(input_ids=torch.arange(8, device=model.device)[None], use_cache=False).logits
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a model that needs more than ids, which the decoders find out
        return
    if not (logits < torch.inf).all():  # also false for NaN; minus infinity is a token that is never sampled
        name = str(model.dtype).removeprefix("torch.")
        raise UsageError(f"the logits of this model are not finite in {name}: say --dtype bfloat16 or float32")


@torch.inference_mode()
def logprob_error(decoder: Decoder, model: Any) -> float:
    """Return the mean absolute error, in nats, of a decoder's log-probabilities against the model's own forward pass.

    Two conversations of different lengths take two turns in one batch; the second turn exceeds a short window.
    """
    text = model.config.get_text_config(decoder=True)
    window = getattr(text, "sliding_window", None) or 0
    total = min(24 + (window if window <= MAX_WINDOW_CHECKED else 0), decoder.max_length)
    rng = np.random.default_rng(0)
    vocabulary = min(text.vocab_size, model.get_input_embeddings().weight.shape[0])
    ids_BT = rng.integers(0, vocabulary, (2, total)).astype(np.int32)
    sampled: list[tuple[int, int, float]] = []  # row, position, log-probability
    for lengths in ((5, 9), (total - 2, total - 2)):  # of the prompts in each turn
        requests = [
            SamplingRequest(b, ids_BT[b, :n].copy(), SamplingParams(), rng.random(2)) for b, n in enumerate(lengths)
        ]
        for b, sample in enumerate(decoder.sample(requests, lambda ids: False)):
            ids_BT[b, lengths[b] : lengths[b] + 2] = sample.ids
            sampled += [(b, lengths[b] + k, logp) for k, logp in enumerate(sample.logprobs.tolist())]
    whole = torch.from_numpy(ids_BT.astype(np.int64)).to(model.device)
    logp_BTV = model(input_ids=whole, use_cache=False).logits.float().log_softmax(-1)
    return float(np.mean([abs(logp - float(logp_BTV[b, at - 1, ids_BT[b, at]])) for b, at, logp in sampled]))


class UncachedDecoder:
    """A decoder for models without a usable cache: the whole sequence is computed for every token, which is slow.

    Rows of equal length are computed together.
    """

    reserved_bytes = 0

    def __init__(self, model: Any) -> None:
        self.model = model
        self.max_length = context_length(model.config)
        self._extra = {"logits_to_keep": 1} if "logits_to_keep" in forward_parameters(model) else {}

    def cache_bytes(self, tokens: int) -> int:
        """Return 0: nothing is cached."""
        return 0

    def clear_cache(self) -> None:
        """Do nothing: nothing is cached."""

    @torch.inference_mode()
    def sample(self, requests: Sequence[SamplingRequest], stop: StopCondition) -> list[Sample]:
        """Continue every prompt until `stop(ids so far)` or until its uniforms are used up."""
        check_lengths(requests, self.max_length)
        rows = [ActiveRequest(request) for request in requests]
        while live := [row for row in rows if not row.finished]:
            length = min(row.position for row in live)
            now = [row for row in live if row.position == length]
            ids = np.array([[*row.request.prompt.tolist(), *row.ids] for row in now])
            out = self.model(input_ids=torch.from_numpy(ids).to(self.model.device), use_cache=False, **self._extra)
            sample_next(now, out.logits[:, -1], stop)
        return [row.sample() for row in rows]

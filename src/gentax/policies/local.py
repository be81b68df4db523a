"""A policy with weights on this machine: a Hugging Face causal model and its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gentax.core import Tokens, UsageError
from gentax.models.action_format import ACTION_END
from gentax.models.chat import ChatCodec
from gentax.models.decoding import AnyDecoder, decoder_for
from gentax.models.decoding.vllm import VLLMDecoder, VLLMModel
from gentax.models.loading import load_tokenizer, load_with_tokenizer, runtime
from gentax.models.memory import parallel_rows
from gentax.models.requests import ModelOptions, SamplingRequest
from gentax.models.source import find
from gentax.policies.protocol import PARALLEL, Reply, Turn


class LocalPolicy:
    """Plays with a local model.

    Args:
        model: a Hugging Face causal model in evaluation mode.
        tokenizer: its tokenizer.
        name: how reports call it.
        decoder: samples from it; the fastest that agrees with the model's forward pass when None.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str = "model", decoder: AnyDecoder | None = None) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.codec = ChatCodec(tokenizer)
        self.decoder = decoder_for(model) if decoder is None else decoder
        self._turns: dict[int, list[np.ndarray]] = {}  # slot -> its conversation: message, answer, message, …
        end = self.codec.reply(ACTION_END)
        self._end = int(end[0]) if len(end) == 1 else None
        ends = model.generation_config.eos_token_id
        self._eos = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}

    @property
    def runtime(self) -> dict[str, str]:
        """The device and the number format of the weights, which results record."""
        return runtime(self.model)

    def refresh(self) -> None:
        """Forget what is cached; call it when the weights have changed."""
        self.decoder.forget()

    def max_parallel(self, context_tokens: int) -> int:
        """Return how many episodes of up to `context_tokens` tokens have room in memory for their keys and values.

        A power of two: batches of another size round differently, and how much is free is never quite the same.
        """
        if isinstance(self.decoder, VLLMDecoder):
            return PARALLEL  # vLLM has taken its memory already, and queues what does not fit
        model, tokens = self.model, min(context_tokens, self.decoder.limit)
        rows = parallel_rows(model.config, tokens, model.device, model.dtype, PARALLEL)
        return 1 << (rows.bit_length() - 1)

    def reply(self, turns: Sequence[Turn]) -> list[Reply]:
        """Answer every turn; the replies carry the tokens shown and sampled."""
        shown = [self._shown(turn, turn.sampling.max_new_tokens) for turn in turns]
        asks = [
            SamplingRequest(
                turn.slot,
                np.concatenate(self._turns[turn.slot]),
                turn.sampling,
                turn.rng.random(turn.sampling.max_new_tokens),
            )
            for turn in turns
        ]
        replies = []
        samples = self.decoder.sample(asks, self._stop)
        for turn, (continues, prompt), sample in zip(turns, shown, samples, strict=True):
            self._turns[turn.slot].append(sample.ids)
            tokens = Tokens(continues, prompt, sample.ids, sample.logprobs)
            replies.append(Reply(self.codec.decode(sample.ids), len(sample.ids), tokens))
        return replies

    def follow(self, turn: Turn, text: str) -> Reply:
        """Take `text` for the policy's own answer to a turn, without sampling: somebody else plays this step.

        The answer stands in the conversation as the policy's, and in the reply's tokens as part of the prompt, so
        that it is read later on and not learned from.
        """
        ids = self._clip(self.codec.reply(text), self.decoder.limit)
        continues, prompt = self._shown(turn, len(ids))
        self._turns[turn.slot].append(ids)
        tokens = Tokens(continues, np.concatenate([prompt, ids]), np.empty(0, np.int32), np.empty(0, np.float32))
        return Reply(text, len(ids), tokens)

    def _shown(self, turn: Turn, answer: int) -> tuple[bool, np.ndarray]:
        """Add the message to the slot's conversation; return whether that continues it, and the prompt's new part.

        `answer` is the number of tokens that must still fit behind it.
        """
        room = self.decoder.limit - answer
        said = self._turns.get(turn.slot)
        if not turn.continues or said is None:
            prompt = self._clip(self.codec.opening(turn.message), room)
            self._turns[turn.slot] = [prompt]
            return False, prompt
        last = int(said[-1][-1]) if len(said[-1]) else -1
        said.append(self._clip(self.codec.following(turn.message, last), room))
        if sum(map(len, said)) <= room:
            return True, said[-1]
        while sum(map(len, said)) > room:  # the rules stay, and as many of the latest exchanges as fit
            del said[1 : min(3, len(said) - 1)]  # the latest message in any case
        return False, np.concatenate(said)

    def _clip(self, ids: np.ndarray, room: int) -> np.ndarray:
        """Cut the middle out of a message that alone would fill the model's context."""
        half = room // 4
        return ids if len(ids) <= 2 * half else np.concatenate([ids[:half], ids[-half:]])

    def _stop(self, ids: list[int]) -> bool:
        if self._end is not None:
            return ids[-1] == self._end or ids[-1] in self._eos
        return ids[-1] in self._eos or ACTION_END in self.tokenizer.decode(ids[-8:])


def load(where: str | Path, options: ModelOptions = ModelOptions()) -> LocalPolicy:
    """Load a policy: "base", a folder, a name on the hub, a PEFT adapter or a GGUF file (see `models.source`).

    Raises:
        UsageError: see `models.loading.load_with_tokenizer`.
    """
    if options.use_vllm:
        return _through_vllm(where, options)
    source, model, tokenizer = load_with_tokenizer(where, options)
    return LocalPolicy(model, tokenizer, name=source.label)


def _through_vllm(where: str | Path, options: ModelOptions) -> LocalPolicy:
    source = find(where, options)
    if source.kind == "gguf":
        raise UsageError(f"vLLM plays folders and adapters here, not GGUF files such as {source.name}")
    tokenizer = load_tokenizer(where, options)
    folder, adapter = (source.path, None) if source.base is None else (source.base.path, source.path)
    decoder = VLLMDecoder(folder, tokenizer, options, adapter)
    return LocalPolicy(VLLMModel(folder, options), tokenizer, source.label, decoder)

"""A policy with local weights: a Hugging Face causal model and its tokenizer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gentax.core import Tokens, UsageError
from gentax.models.chat import ChatCodec
from gentax.models.decoding import Decoder, LlamaDecoder, select_decoder
from gentax.models.decoding.sampling import StopCondition
from gentax.models.decoding.vllm import VLLMDecoder, VLLMModel
from gentax.models.device import available_memory, max_batch_size
from gentax.models.loading import check_model_files, load_model, load_tokenizer, loading_errors, runtime
from gentax.models.options import MAX_NEW_TOKENS, MAX_NEW_TOKENS_THINKING, ChatOptions, ModelOptions, SamplingRequest
from gentax.policies.protocol import MAX_PARALLEL, PolicyRequest, Reply

LARGE_CACHE_SHARE = 0.1  # of the memory left on the device; a smaller cache is kept
MIN_MESSAGE_TOKENS = 16  # tokens of a message that must remain
NEW_TOKENS_MADE_HERE, NEW_TOKENS_MADE_HERE_THINKING = 32, 160  # of a reply of the shipped model and its descendants


class LocalPolicy:
    """Plays with a local model.

    Args:
        model: a Hugging Face causal model in evaluation mode.
        tokenizer: its tokenizer.
        name: in reports.
        decoder: the fastest that agrees with the model's forward pass when None.
        origin: of the weights, as results record it (`ModelSource.origin`).
        codec: for conversations without options, if there is one already.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str = "model",
        decoder: Decoder | None = None,
        origin: Mapping[str, str] | None = None,
        codec: ChatCodec | None = None,
    ) -> None:
        self.model, self.tokenizer, self.name, self.origin = model, tokenizer, name, dict(origin or {})
        self._codecs: dict[ChatOptions, ChatCodec] = {} if codec is None else {codec.options: codec}
        self.codec = self.codec_for(ChatOptions())
        self.decoder = select_decoder(model) if decoder is None else decoder
        self._conversations: dict[int, _Conversation] = {}
        self._stops: dict[ChatOptions, StopCondition] = {}
        self._warned = False  # that a message was cut
        ends = model.generation_config.eos_token_id
        self._eos = {tokenizer.eos_token_id, self.codec.stop_id, *(ends if isinstance(ends, list) else [ends])} - {None}

    def codec_for(self, chat: ChatOptions) -> ChatCodec:
        """Return the codec for conversations with these options.

        Raises UsageError where the model does not support them.
        """
        if chat not in self._codecs:
            self._codecs[chat] = ChatCodec(self.tokenizer, chat, self.name)
        return self._codecs[chat]

    def default_max_new_tokens(self, chat: ChatOptions) -> int:
        """Return the default length of a reply; at most a quarter of the context."""
        codec = self.codec_for(chat)
        thinking = chat.thinking or codec.layout.opens_thought
        if codec.has_reply_tokens and chat.action_format == "tags":
            return NEW_TOKENS_MADE_HERE_THINKING if thinking else NEW_TOKENS_MADE_HERE
        return min(MAX_NEW_TOKENS_THINKING if thinking else MAX_NEW_TOKENS, max(1, self.decoder.max_length // 4))

    @property
    def runtime(self) -> dict[str, str]:
        """What results record: device, dtype and origin of the weights, and vLLM, whose tokens differ."""
        engine = {"engine": "vllm"} if isinstance(self.decoder, VLLMDecoder) else {}
        return runtime(self.model) | engine | self.origin

    def clear_cache(self) -> None:
        """Forget the KV cache; call it when the weights have changed."""
        self.decoder.clear_cache()

    def release_memory(self) -> None:
        """Clear the KV cache, and free it where it takes much of the memory left: training comes next."""
        self.decoder.clear_cache()
        if isinstance(
            self.decoder, LlamaDecoder
        ) and self.decoder.reserved_bytes > LARGE_CACHE_SHARE * available_memory(self.model.device):
            self.decoder.free_cache()

    def max_parallel(self, context_tokens: int) -> int:
        """Return how many episodes of up to `context_tokens` tokens have room in memory for their KV cache.

        The present cache is cleared, so that this reflects the memory of the next rollout. The result is a power of
        two: other batch sizes round differently, and free memory is never quite the same.
        """
        row = self.decoder.cache_bytes(min(context_tokens, self.decoder.max_length))
        if row is None:
            return MAX_PARALLEL  # vLLM has taken its memory already, and queues what does not fit
        self.decoder.clear_cache()
        reserved, model = self.decoder.reserved_bytes, self.model
        rows = max_batch_size(model.config, row, model.device, MAX_PARALLEL, reserved)
        return 1 << (rows.bit_length() - 1)

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        """Reply to every request, with the prompt's and the sampled tokens.

        Raises:
            UsageError: a context that cannot hold a prompt and a reply.
        """
        if not turns:
            return []
        prompts = [self._append_message(turn, turn.sampling.max_new_tokens) for turn in turns]
        requests = [
            SamplingRequest(
                turn.slot,
                np.concatenate(self._conversations[turn.slot].ids),
                turn.sampling,
                turn.rng.random(turn.sampling.max_new_tokens),
            )
            for turn in turns
        ]
        replies = []
        codec = self.codec_for(turns[0].chat)  # the same for all requests of a rollout
        stop = self._stops.setdefault(turns[0].chat, partial(self._stop, codec))
        samples = self.decoder.sample(requests, stop)
        for turn, new, sample in zip(turns, prompts, samples, strict=True):
            ids = sample.ids
            text = codec.decode(ids)
            conversation = self._conversations[turn.slot]
            conversation.ids.append(ids)
            conversation.called = codec.calls_tool(text)
            complete = len(ids) < turn.sampling.max_new_tokens or stop(ids.tolist())
            replies.append(
                Reply(
                    text,
                    len(ids),
                    Tokens(new.continues, new.ids, ids, sample.logprobs),
                    codec.parse_reply(text),
                    truncated=not complete,
                    prompt_cut=new.cut,
                    dropped=new.dropped,
                )
            )
        return replies

    def _append_message(self, turn: PolicyRequest, answer: int) -> _NewPrompt:
        """Append the message to the slot's conversation; return what is new in the prompt.

        Once the context is full, the oldest turns after the first message are dropped, and what still does not fit
        loses its middle. `answer` is the number of tokens that must fit after it.
        """
        codec, room = self.codec_for(turn.chat), self.decoder.max_length - answer
        conversation = self._conversations.get(turn.slot)
        if not turn.continues or conversation is None:
            ids, cut = self._fit_message(codec, codec.first_prompt(turn.message), room, answer, first=True)
            self._conversations[turn.slot] = _Conversation([ids])
            return _NewPrompt(False, ids, cut, 0)
        ids_M = conversation.ids
        last = int(ids_M[-1][-1]) if len(ids_M[-1]) else -1
        ids_M.append(codec.next_prompt(turn.message, last, conversation.called))
        size = sum(map(len, ids_M))
        if size <= room:
            return _NewPrompt(True, ids_M[-1], False, 0)
        dropped = 0
        while len(ids_M) > 3 and size > room:  # the rules stay, and as many of the latest turns as fit
            size -= len(ids_M[1]) + len(ids_M[2])
            del ids_M[1:3]
            dropped += 1
        cut = False
        if size > room:  # the first message and the latest, without the answer between them
            # Without an answer before it, nothing has ended a turn or called a tool.
            first, latest = ids_M[0], codec.next_prompt(turn.message, -1)
            latest, cut_latest = self._fit_message(
                codec, latest, max(room // 2, room - len(first)), answer, first=False
            )
            first, cut_first = self._fit_message(codec, first, room - len(latest), answer, first=True)
            ids_M[:] = [first, latest]
            cut, dropped = cut_latest or cut_first, dropped + 1
        return _NewPrompt(False, np.concatenate(ids_M), cut, dropped)

    def _fit_message(
        self, codec: ChatCodec, ids: np.ndarray, room: int, answer: int, first: bool
    ) -> tuple[np.ndarray, bool]:
        """Cut the middle of a message that alone would fill the context; return whether it was cut."""
        if len(ids) <= room:
            return ids, False
        before, after = codec.template_overhead(first)
        kept = room - before - after
        if kept < MIN_MESSAGE_TOKENS:
            raise UsageError(
                f"the context of {self.name} holds {self.decoder.max_length} tokens, and with {answer} for the answer "
                "no prompt fits; say a smaller --max-new-tokens, or window(1) as the context"
            )
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"a message of {len(ids)} tokens does not fit the context of {self.name}, {self.decoder.max_length} "
                f"with {answer} for the answer: its middle was cut",
                stacklevel=4,
            )
        head, tail = before + kept // 2, after + (kept - kept // 2)
        return np.concatenate([ids[:head], ids[len(ids) - tail :]]), True

    def _stop(self, codec: ChatCodec, ids: list[int]) -> bool:
        if ids[-1] in self._eos:
            return True
        if codec.action_end_id is not None:
            return ids[-1] == codec.action_end_id
        # A mark has one token for each of its bytes at most.
        tail = self.tokenizer.decode(ids[-max((len(mark.encode()) for mark in codec.end_markers), default=1) :])
        return any(mark in tail for mark in codec.end_markers) and codec.is_complete(codec.decode(ids))


@dataclass
class _Conversation:
    """The token ids of a slot: message, reply, message, …"""

    ids: list[np.ndarray]
    called: bool = False  # whether the last reply called the tool


class _NewPrompt(NamedTuple):
    """What is new in a prompt."""

    continues: bool
    ids: np.ndarray
    cut: bool  # a message lost its middle
    dropped: int  # turns that were dropped


def load_local_policy(where: str | Path, options: ModelOptions = ModelOptions()) -> LocalPolicy:
    """Load a policy: "base", a folder, a hub id, a PEFT adapter or a GGUF file (see `models.source`).

    Raises:
        UsageError: see `models.loading.load_model`.
    """
    if options.use_vllm:
        return _load_with_vllm(where, options)
    source = check_model_files(where, options)
    tokenizer = load_tokenizer(source, options)
    codec = ChatCodec(tokenizer, ChatOptions(), source.label)  # refuses an unusable chat template
    model = load_model(source, options, tokenizer)
    return LocalPolicy(model, tokenizer, source.label, origin=source.origin, codec=codec)


def _load_with_vllm(where: str | Path, options: ModelOptions) -> LocalPolicy:
    source = check_model_files(where, options)
    if options.device != "auto":
        raise UsageError(f"vLLM chooses the device: leave out --device {options.device}, or --use-vllm")
    if source.kind == "gguf":
        raise UsageError(f"vLLM plays folders and adapters here, not GGUF files such as {source.name}")
    tokenizer = load_tokenizer(source, options)
    folder, adapter = (source.path, None) if source.base is None else (source.base.path, source.path)
    with loading_errors(source.name):
        model = VLLMModel(folder, options)
        decoder = VLLMDecoder(model, tokenizer, options, adapter)
    return LocalPolicy(model, tokenizer, source.label, decoder, source.origin)

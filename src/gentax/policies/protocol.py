"""The policy protocol: a batch of requests in, one text reply each out.

The rollout engine asks for all episodes in flight at once. A request names its slot; a policy may keep a slot's state
(tokens, KV cache, messages) from one request to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from gentax.core import TextEnv, Tokens
from gentax.models.action_format import ParsedReply
from gentax.models.options import ChatOptions, SamplingParams

MAX_PARALLEL = 128  # default number of episodes in flight


@dataclass(frozen=True, slots=True)
class PolicyRequest:
    """A request for the next action of one episode."""

    slot: int
    message: str  # the user message: the whole prompt, or what is new since the slot's last reply
    continues: bool  # whether `message` continues the slot's conversation (append-only context) or starts one
    env: TextEnv  # for policies that use the environment instead of the prompt (random, expert)
    rng: np.random.Generator  # the episode's own
    sampling: SamplingParams
    chat: ChatOptions = ChatOptions()


@dataclass(frozen=True, slots=True)
class Reply:
    """A policy's reply to a request."""

    text: str
    written: int | None = None  # tokens of `text`, where the policy writes tokens
    tokens: Tokens | None = None  # for local models
    parsed: ParsedReply | None = None  # by the policy itself; else `text` is parsed by the action format
    truncated: bool = False  # cut off at max_new_tokens
    prompt_cut: bool = False  # a message lost its middle, to fit the context
    dropped: int = 0  # earlier turns dropped from this prompt, to fit the context
    error: str = ""  # why there is no reply: the episode ends as an error, which is no failure of the policy


@runtime_checkable
class Policy(Protocol):
    """Maps prompts to text.

    Two methods are optional: `default_max_new_tokens(chat: ChatOptions) -> int`, used where
    `RolloutConfig.max_new_tokens` is 0, and `max_parallel(context_tokens: int) -> int`, how many episodes of that
    length may be in flight, such as when a KV cache must fit in memory.
    """

    name: str

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        """Reply to every request, in order. Other slots keep their state."""
        ...


def max_parallel_episodes(policy: Policy, context_tokens: int) -> int:
    """Return the default number of episodes in flight: `MAX_PARALLEL`, or the policy's limit."""
    limit = getattr(policy, "max_parallel", None)
    return MAX_PARALLEL if limit is None else max(1, min(MAX_PARALLEL, limit(context_tokens)))

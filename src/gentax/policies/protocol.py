"""What a policy is: it is asked a batch of turns and answers each with text.

The engine asks all episodes in flight at once. A turn says which slot it belongs to; a policy may keep what it knows
of a slot (tokens, a key-value cache, messages) from one turn to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from gentax.core import TextEnv, Tokens
from gentax.models.action_format import ParsedReply
from gentax.models.requests import ChatOptions, SamplingParams

MAX_PARALLEL = 128  # episodes in flight, where neither the user nor the policy says


@dataclass(frozen=True, slots=True)
class PolicyRequest:
    """One question to a policy."""

    slot: int
    message: str  # what the user says now: the whole prompt, or what is new since the slot's last turn
    continues: bool  # whether `message` follows the slot's last turn (an append-only context) or starts afresh
    env: TextEnv  # for policies that look at the environment instead of the prompt (random, expert)
    rng: np.random.Generator  # the episode's own
    sampling: SamplingParams
    chat: ChatOptions = ChatOptions()


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    text: str
    written: int | None = None  # tokens of `text`, where the policy writes tokens
    tokens: Tokens | None = None  # for local models
    parsed: ParsedReply | None = None  # for policies that read their own notation; else `text` is parsed by the format
    truncated: bool = False  # the budget of tokens was used up before the reply was over
    prompt_cut: bool = False  # a message lost its middle, since the context could not hold it
    dropped: int = 0  # earlier exchanges that the context could not hold any more, and that this prompt lost


@runtime_checkable
class Policy(Protocol):
    """Maps prompts to text.

    A policy that writes tokens may have a method `default_max_new_tokens(chat: ChatOptions) -> int`, the tokens a reply
    has where `RolloutConfig.max_new_tokens` is 0 (see `rollouts.prompt.with_budget`).
    """

    name: str

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        """Answer every turn, in order. Slots that are not asked keep their state."""
        ...


@runtime_checkable
class SupportsMaxParallel(Protocol):
    """A policy that says how many episodes it can play at once, such as a model whose cache has to fit in memory."""

    def max_parallel(self, context_tokens: int) -> int:
        """Return how many episodes can be in flight, at least 1, when each takes up to `context_tokens` tokens."""
        ...


def max_parallel_episodes(policy: Policy, context_tokens: int) -> int:
    """Return how many episodes are in flight by default: `MAX_PARALLEL`, or fewer where the policy says so."""
    if isinstance(policy, SupportsMaxParallel):
        return max(1, min(MAX_PARALLEL, policy.max_parallel(context_tokens)))
    return MAX_PARALLEL

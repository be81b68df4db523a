"""Conversations and episodes as token sequences to learn from: which tokens count, and how much.

The agent's own tokens count fully, the end of its turn among them; messages are read only, unless `observed` says
otherwise. What is left out: the tokens beyond a model's context. A conversation ends there, and so does the count of
what is learned from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from gentax.core import Episode, Step
from gentax.models.action_format import write_reply
from gentax.models.chat import ChatCodec
from gentax.rollouts.prompt import RolloutConfig, message


@dataclass(frozen=True, slots=True)
class Example:
    """A token sequence and how much each of its tokens counts."""

    ids_T: np.ndarray  # int32
    weight_T: np.ndarray  # float32; 0 for tokens that are only read
    pairs: int = 0  # state-action pairs learned


class Exchange(NamedTuple):
    """A message to the agent and its reply."""

    message: str
    reply: str
    continues: bool  # the message follows the reply before it; else a conversation begins
    learned: bool = True  # whether the reply is learned, or only read


def exchanges(
    episode: Episode,
    play: RolloutConfig,
    learned: Callable[[Step], bool] = lambda step: True,
    write: Callable[[str, str | None], str] | None = None,
) -> Iterator[Exchange]:
    """Yield an episode as a policy would meet it under `play`, its actions and thoughts written as replies.

    Args:
        episode: any episode.
        play: context, thinking and whether admissible actions are listed (as the episode recorded them).
        learned: which steps' replies are learned.
        write: writes a reply of an action and a thought: that of the learner's codec, for what it has of its own;
            `write_reply` in the action format of `play` when None.
    """
    write = write or partial(write_reply, action_format=play.action_format)
    for n, step in enumerate(episode.steps):
        shown = step.admissible if play.admissible else None
        text, continues = message(play, episode.rules, episode.goal, episode.steps[:n], step.observation, shown)
        yield Exchange(text, write(step.action, step.thought if play.thinking else None), continues, learned(step))


def examples(
    exchanges: Iterable[Exchange],
    codec: ChatCodec,
    *,
    observed: float = 0.0,
    limit: int | None = None,
    most: int | None = None,
) -> Iterator[Example]:
    """Yield the sequences of some exchanges: one for each conversation among them.

    Args:
        exchanges: in order.
        codec: the tokenizer's side.
        observed: weight of the tokens of messages; those of learned replies have weight 1.
        limit: tokens a sequence may have; the exchanges of a conversation that do not fit are left out.
        most: replies to learn at most; what comes after them is left out.
    """
    ids: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    pairs = learned = 0
    full = called = False
    for exchange in exchanges:
        if learned == most:
            break
        if not exchange.continues:
            if ids:
                yield Example(np.concatenate(ids), np.concatenate(weights), pairs)
            ids, weights, pairs, full = [], [], 0, False
        if full:
            continue
        asked = codec.following(exchange.message, int(ids[-1][-1]), called) if ids else codec.opening(exchange.message)
        said, called = codec.turn(exchange.reply), codec.called(exchange.reply)
        if limit is not None and sum(map(len, ids)) + len(asked) + len(said) > limit:
            full = True
            continue
        ids += [asked, said]
        weights += [np.full(len(asked), observed, np.float32), np.full(len(said), float(exchange.learned), np.float32)]
        pairs += exchange.learned
        learned += exchange.learned
    if ids:
        yield Example(np.concatenate(ids), np.concatenate(weights), pairs)


def own_examples(episode: Episode, most: int | None = None) -> Iterator[Example]:
    """Yield the sequences of an episode that the learner itself played: the tokens it was shown and the ones it
    sampled, none of them tokenized anew. Replies without an action are read only.

    Args:
        episode: its steps have tokens.
        most: replies to learn at most; what comes after them is left out.
    """
    learned = 0
    for sequence in episode.sequences():
        steps = [n for n in np.unique(sequence.step_T[sequence.sampled_T]).tolist() if episode.steps[n].action]
        steps = steps if most is None else steps[: most - learned]
        if steps:
            learned += len(steps)
            learned_T = sequence.sampled_T & np.isin(sequence.step_T, steps)
            end = int(np.flatnonzero(learned_T)[-1]) + 1
            yield Example(sequence.ids_T[:end], learned_T[:end].astype(np.float32), len(steps))

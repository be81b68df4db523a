"""What happened: the steps of one policy on one task. Episodes are all that crosses from playing to the rest.

A step keeps the text a person reads and, for a local model, the token ids it was shown and the ids it sampled.
Text is never tokenized a second time to learn from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from gentax.core.task import Task


class Outcome(StrEnum):
    """How an episode ended. An error is the environment's doing: it is never a failure and enters no mean."""

    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one step. Prompts are kept as what is new in them, so that a long episode stays small."""

    continues: bool  # `prompt` follows the last step's tokens (append-only context), or stands by itself
    prompt: np.ndarray  # int32, what the model was shown; only what is new when it continues
    sampled: np.ndarray  # int32, what the model wrote
    logprobs: np.ndarray  # float32, of each sampled token under the distribution it was drawn from


@dataclass(frozen=True, slots=True)
class Step:
    """One turn: what the policy saw, what it wrote, what the environment made of it."""

    observation: str  # before the action
    text: str  # the policy's whole reply
    action: str  # as parsed out of it; "" when nothing could be parsed
    reward: float
    valid: bool  # the environment accepted the action
    thought: str = ""
    admissible: tuple[str, ...] | None = None  # as shown in the prompt; None when not shown
    written: int | None = None  # tokens of `text`; None for policies that do not write tokens
    truncated: bool = False  # the reply used up its budget of tokens before it was over
    prompt_cut: bool = False  # a message lost its middle, since the context could not hold it
    dropped: int = 0  # earlier exchanges that the context could not hold any more, and the prompt lost at this step
    tokens: Tokens | None = None  # None for policies that are not local models, and for episodes read from a file


@dataclass(frozen=True, slots=True)
class Episode:
    """All steps of one policy on one task, and the outcome."""

    task: Task
    sample: int  # which of several episodes on the same task
    goal: str
    steps: tuple[Step, ...]
    outcome: Outcome
    final: str = ""  # the observation after the last action
    error: str = ""  # what broke, for Outcome.ERROR
    rules: str = ""  # as the policy read them
    content: str = ""  # hash of what the task is made of (`TextEnv.content`); "" where the environment cannot say

    @property
    def success(self) -> bool:
        return self.outcome is Outcome.SUCCESS

    @property
    def ret(self) -> float:
        """The return: the sum of rewards, undiscounted."""
        return float(sum(step.reward for step in self.steps))

    @property
    def length(self) -> int:
        """Steps taken."""
        return len(self.steps)

    @property
    def invalid(self) -> int:
        """Actions that could not be parsed or that the environment refused, but for replies that were truncated."""
        return sum(not step.valid and not step.truncated for step in self.steps)

    @property
    def truncated(self) -> int:
        """Replies that used up their budget of tokens before they were over."""
        return sum(step.truncated for step in self.steps)

    @property
    def cut_prompts(self) -> int:
        """Steps whose prompt lost something that the context could not hold: part of a message, or exchanges."""
        return sum(step.prompt_cut or step.dropped > 0 for step in self.steps)

    @property
    def written(self) -> int | None:
        """Tokens the policy wrote; None when that is not known of every step."""
        counts = [step.written for step in self.steps]
        return None if None in counts else sum(count for count in counts if count is not None)

    def sequences(self) -> Iterator[Sequence]:
        """Yield the token sequences to learn from: one for an append-only context, one a step for a window."""
        run: list[Tokens] = []
        first = 0
        for n, tokens in enumerate(step.tokens for step in self.steps):
            if run and (tokens is None or not tokens.continues):
                yield Sequence.of(run, first)
                run = []
            if tokens is not None:
                first = first if run else n
                run.append(tokens)
        if run:
            yield Sequence.of(run, first)


@dataclass(frozen=True, slots=True)
class Sequence:
    """Token ids in order, which of them the policy sampled, their log-probabilities then (0 elsewhere), and the step of
    the episode that each belongs to, its prompt included."""

    ids_T: np.ndarray = field(repr=False)  # int32
    sampled_T: np.ndarray = field(repr=False)  # bool
    logprobs_T: np.ndarray = field(repr=False)  # float32
    step_T: np.ndarray = field(repr=False)  # int32

    @classmethod
    def of(cls, run: list[Tokens], first: int = 0) -> Sequence:
        """Join the tokens of steps that continue each other; `first` is the number of the first one."""
        parts = [
            part for t in run for part in ((t.prompt, False, np.zeros(len(t.prompt))), (t.sampled, True, t.logprobs))
        ]
        return cls(
            np.concatenate([ids for ids, _, _ in parts]).astype(np.int32),
            np.concatenate([np.full(len(ids), sampled) for ids, sampled, _ in parts]),
            np.concatenate([logprobs for _, _, logprobs in parts]).astype(np.float32),
            np.repeat(np.arange(first, first + len(run)), [len(t.prompt) + len(t.sampled) for t in run]).astype(
                np.int32
            ),
        )

    def __len__(self) -> int:
        return len(self.ids_T)

"""What happened: the steps of one policy on one task. Episodes are all that crosses from playing to the rest.

A step keeps the text a person reads and, for a local model, the token ids it was shown and the ids it sampled.
Text is never tokenized a second time to learn from it.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gentax.core.env import Task
from gentax.core.errors import UsageError, unknown
from gentax.core.files import atomic_file, is_gzipped, parse_json, read_lines


class Outcome(StrEnum):
    """How an episode ended. An error is the environment's doing, or a server's: it is no failure and enters no mean."""

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

    # For reading files; values of other types, such as tokens, are in none.
    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"arbitrary_types_allowed": True, "allow_inf_nan": False}

    task: Task
    sample: int  # which of several episodes on the same task
    goal: str
    steps: tuple[Step, ...]
    outcome: Outcome
    final: str = ""  # the observation after the last action
    error: str = ""  # what broke, for Outcome.ERROR
    rules: str = ""  # as the policy read them
    content: str = ""  # hash of what the task is made of (`TextEnv.content`); "" where the environment cannot say
    validity_known: bool = True  # whether `valid` of its steps is known, which others' recordings do not say

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

    def sequences(self) -> Iterator[TokenSequence]:
        """Yield the token sequences to learn from: one for an append-only context, one a step for a window."""
        run: list[Tokens] = []
        first = 0
        for n, tokens in enumerate(step.tokens for step in self.steps):
            if run and (tokens is None or not tokens.continues):
                yield TokenSequence.of(run, first)
                run = []
            if tokens is not None:
                first = first if run else n
                run.append(tokens)
        if run:
            yield TokenSequence.of(run, first)


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """Token ids in order, which of them the policy sampled, their log-probabilities then (0 elsewhere), and the step of
    the episode that each belongs to, its prompt included."""

    ids_T: np.ndarray = field(repr=False)  # int32
    sampled_T: np.ndarray = field(repr=False)  # bool
    logprobs_T: np.ndarray = field(repr=False)  # float32
    step_T: np.ndarray = field(repr=False)  # int32

    @classmethod
    def of(cls, run: list[Tokens], first: int = 0) -> TokenSequence:
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


def common_prefix_length(a: np.ndarray, b: np.ndarray) -> int:
    """Return the length of the longest common beginning."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def prefix_order(sequences: Sequence[np.ndarray]) -> list[int]:
    """Return the order of token sequences in which those that begin alike are neighbours."""
    return sorted(range(len(sequences)), key=lambda i: sequences[i].astype(">i4").tobytes())


# Episodes as lines of JSON. Text and outcomes are kept; token ids are not, since nothing learns from a file.
#
# A file that is not one of these is refused in one line that names the file, the line in it and what is wrong there.
EPISODES_FILE = "episodes.jsonl.gz"  # of the file, in the folder of a study's stage
LOSSES = ("truncated", "prompt_cut", "dropped")  # of a step; written where there are any


def episode_to_json(episode: Episode) -> dict[str, Any]:
    """Return an episode as plain values."""
    return {
        "task": episode.task.id,
        "sample": episode.sample,
        "rules": episode.rules,
        "goal": episode.goal,
        "outcome": episode.outcome.value,
        "final": episode.final,
        "error": episode.error,
        **({"content": episode.content} if episode.content else {}),
        "steps": [
            {
                "observation": step.observation,
                "text": step.text,
                "action": step.action,
                "thought": step.thought,
                "reward": step.reward,
                "valid": step.valid,
                "written": step.written,
                **{name: value for name in LOSSES if (value := getattr(step, name))},
                **({} if step.admissible is None else {"admissible": list(step.admissible)}),
            }
            for step in episode.steps
        ],
    }


def episode_from_json(value: Any) -> Episode:
    """Read an episode back by the types of its fields; its steps have no tokens, and further keys are ignored.

    Raises:
        UsageError: a value that `episode_to_json` does not make.
    """
    from gentax.core.settings import read_settings  # takes pydantic

    if not isinstance(value, dict):
        raise UsageError(f"a mapping was expected, not {value!r:.40}")
    if "task" not in value:
        raise UsageError("an episode lacks the key 'task'")
    try:
        task = asdict(Task.parse(value["task"]))
    except (ValueError, AttributeError):
        raise UsageError(f"task must be domain/level/split/index, not {value['task']!r:.80}") from None
    if value.get("outcome", "") not in ("", *Outcome):
        raise unknown("outcome", value["outcome"], Outcome)
    return read_settings(Episode, value | {"task": task}, "an episode")


def write_episodes(path: Path, episodes: Iterable[Episode]) -> None:
    """Write episodes to a gzipped file, a line each, whole or not at all; the same episodes make the same bytes."""
    lines = "".join(json.dumps(episode_to_json(episode)) + "\n" for episode in episodes)
    with atomic_file(path) as aside:
        aside.write_bytes(gzip.compress(lines.encode(), mtime=0))


def read_episodes(path: Path) -> list[Episode]:
    """Read the episodes that `write_episodes` wrote, from the file or from the folder of a stage that holds it.

    Files that were joined (`cat a.gz b.gz`) are read as one.

    Raises:
        UsageError: no such file, a file that is not gzipped, cut short, damaged or larger than `files.py` allows, a
            line that is no episode.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / EPISODES_FILE).is_file():
            raise UsageError(f"the folder {path} holds no {EPISODES_FILE}")
        path = path / EPISODES_FILE
    if not path.is_file():
        raise UsageError(f"there is no file of episodes {path}")
    if not is_gzipped(path):
        raise UsageError(f"{path} is not a file of episodes: it is not gzipped")
    episodes = []
    for number, line in read_lines(path):
        try:
            value = parse_json(line)
        except ValueError as fault:
            raise UsageError(f"{path}, line {number}, is not JSON: {fault}") from None
        try:
            episodes.append(episode_from_json(value))
        except UsageError as fault:
            raise UsageError(f"{path}, line {number}, is no episode: {fault}") from None
    return episodes

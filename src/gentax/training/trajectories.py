"""Trajectories to learn from: files of conversations, gentax's own episodes, and both as weighted token sequences.

Three kinds of record are read, as a list in JSON or one a line (JSONL), plain or gzipped:

- `{"messages": [{"role": "system" | "user" | "tool" | "assistant", "content": "…"}, …]}`, as for OpenAI's fine-tuning
  and TRL. `"weight": 0` at an assistant's message: read, not learned.
- `{"conversations": [{"from": "system" | "human" | "gpt", "value": "…"}, …]}`, as in AgentTraj-L (arXiv 2406.04151)
  and ShareGPT. `"loss": false` at a message of `gpt`: read, not learned.
- the episodes that gentax writes (`core/episode.py`), also by the folder that holds them.

A log of Inspect (`.json`, `.eval`) is read as the first kind: its samples have messages, and a score of 1 is a success.

`"success": false` in a record of the first two kinds says that its agent failed. Replies are kept word for word; all
that stands between two of them is joined to one message. As token sequences, the agent's own tokens have weight 1, the
end of its turn among them; messages are read only, unless `observed` says otherwise. A conversation ends where the
model's context does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gentax.core import Episode, Step, UsageError
from gentax.core.episode import EPISODES_FILE, episode_from_json, read_episodes
from gentax.core.errors import unknown
from gentax.core.files import GRADES, first_character, parse_json, read_inspect_log, read_json, read_lines
from gentax.models.action_format import write_reply
from gentax.models.chat import ChatCodec
from gentax.rollouts.prompt import RolloutConfig, build_message


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
    config: RolloutConfig,
    learned: Callable[[Step], bool] = lambda step: True,
    write: Callable[[str, str | None], str] | None = None,
) -> Iterator[Exchange]:
    """Yield an episode as a policy would meet it under `config`, its actions and thoughts written as replies.

    Args:
        learned: which steps' replies are learned.
        write: writes a reply of an action and a thought, such as `ChatCodec.format_reply`; `write_reply` when None.
    """
    write = write or partial(write_reply, action_format=config.action_format)
    for n, step in enumerate(episode.steps):
        shown = step.admissible if config.admissible else None
        text, continues = build_message(config, episode.rules, episode.goal, episode.steps[:n], step.observation, shown)
        yield Exchange(text, write(step.action, step.thought if config.thinking else None), continues, learned(step))


def examples(
    exchanges: Iterable[Exchange],
    codec: ChatCodec,
    *,
    observed: float = 0.0,
    limit: int | None = None,
    max_pairs: int | None = None,
) -> Iterator[Example]:
    """Yield the sequences of some exchanges: one for each conversation among them.

    Args:
        observed: weight of the tokens of messages; those of learned replies have weight 1.
        limit: tokens a sequence may have; the exchanges of a conversation that do not fit are left out.
        max_pairs: replies to learn at most; what comes after them is left out.
    """
    ids: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    pairs = learned = 0
    full = called = False
    for exchange in exchanges:
        if learned == max_pairs:
            break
        if not exchange.continues:
            if ids:
                yield Example(np.concatenate(ids), np.concatenate(weights), pairs)
            ids, weights, pairs, full = [], [], 0, False
        if full:
            continue
        prompt = (
            codec.next_prompt(exchange.message, int(ids[-1][-1]), called)
            if ids
            else codec.first_prompt(exchange.message)
        )
        reply, called = codec.encode_turn(exchange.reply), codec.calls_tool(exchange.reply)
        if limit is not None and sum(map(len, ids)) + len(prompt) + len(reply) > limit:
            full = True
            continue
        ids += [prompt, reply]
        weights += [
            np.full(len(prompt), observed, np.float32),
            np.full(len(reply), float(exchange.learned), np.float32),
        ]
        pairs += exchange.learned
        learned += exchange.learned
    if ids:
        yield Example(np.concatenate(ids), np.concatenate(weights), pairs)


def sampled_examples(episode: Episode, max_pairs: int | None = None) -> Iterator[Example]:
    """Yield the sequences of an episode that the learner itself played, as it sampled them: nothing is tokenized anew.

    Replies without an action are read only, and what comes after `max_pairs` learned replies is left out.
    """
    learned = 0
    for sequence in episode.sequences():
        steps = [n for n in np.unique(sequence.step_T[sequence.sampled_T]).tolist() if episode.steps[n].action]
        steps = steps if max_pairs is None else steps[: max_pairs - learned]
        if steps:
            learned += len(steps)
            learned_T = sequence.sampled_T & np.isin(sequence.step_T, steps)
            end = int(np.flatnonzero(learned_T)[-1]) + 1
            yield Example(sequence.ids_T[:end], learned_T[:end].astype(np.float32), len(steps))


AGENT, OTHERS = ("assistant", "gpt"), ("system", "developer", "user", "human", "tool", "function", "observation")
SUFFIXES = (".json", ".jsonl", ".gz", ".eval")
LIST_LIMIT = 1 << 28  # bytes of a JSON list, which is read as a whole; lines may have more (see `core/files.py`)


@dataclass(frozen=True)
class Conversation:
    """Messages to an agent and its replies."""

    exchanges: tuple[Exchange, ...]
    success: bool | None  # None where the file does not say
    id: str = ""  # "" where the file does not say


def holds_trajectories(name: str) -> bool:
    """Return whether `name` names a file of trajectories (or a folder of episodes), there or not, and no policy."""
    path = Path(name)
    return "://" not in name and (path.is_file() or (path / EPISODES_FILE).is_file() or path.name.endswith(SUFFIXES))


def read_trajectories(path: str | Path) -> list[Conversation | Episode]:
    """Read a file of trajectories.

    Raises:
        UsageError: no such file, or one that holds something else; the file, its line and what is wrong are named.
    """
    path = Path(path)
    if path.is_dir():
        return list(read_episodes(path))
    if not path.is_file():
        near = path.parent.iterdir() if path.parent.is_dir() else ()
        raise unknown("file of trajectories", path, [str(file) for file in near if file.name.endswith(SUFFIXES)])
    trajectories: list[Conversation | Episode] = []
    for where, record in _records(path):
        try:
            trajectories.append(_trajectory(record))
        except UsageError as fault:
            raise UsageError(f"{path}, {where}: {fault}") from None
    if not trajectories:
        raise UsageError(f"{path} holds no trajectory")
    return trajectories


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the records in a JSON list or a log of Inspect, or those of the lines, with where each stands."""
    if _is_inspect_log(path):
        for sample in read_inspect_log(path):
            yield f"sample {str(sample['id'])[:80]!r}", _inspect_record(sample)
        return
    if first_character(path) == "[":
        yield from ((f"record {number}", record) for number, record in enumerate(read_json(path, LIST_LIMIT), 1))
        return
    for number, line in read_lines(path):
        try:
            yield f"line {number}", parse_json(line)
        except ValueError as fault:
            raise UsageError(f"{path}, line {number}, is not JSON: {fault}") from None


def _is_inspect_log(path: Path) -> bool:
    """Return whether a file is one object of JSON over many lines, or one with `eval`, or a packed log."""
    if path.suffix != ".json" or first_character(path) != "{":
        return path.suffix == ".eval"
    try:
        record = parse_json(next(line for _, line in read_lines(path)))
    except ValueError:
        return True
    return "eval" in record


def _inspect_record(sample: dict[str, Any]) -> dict[str, Any]:
    """Return a sample of Inspect as messages; its success is known where it has one score that is a grade or 0 or 1."""
    values = [one.get("value") for one in sample["scores"].values()]
    values = [GRADES.get(value, None) if isinstance(value, str) else value for value in values]
    success = values[0] == 1 if len(values) == 1 and isinstance(values[0], (bool, int, float)) else None
    messages = [{key: value for key, value in one.items() if value is not None} if isinstance(one, dict) else one
                for one in sample.get("messages") or ()]  # fmt: skip
    return {"messages": messages, "success": success, "id": sample["id"]}


def _trajectory(record: Any) -> Conversation | Episode:
    if isinstance(record, dict) and "steps" in record:
        return episode_from_json(record)
    if isinstance(record, dict) and "messages" in record:
        return _conversation(record, "messages", "role", "content", "weight")
    if isinstance(record, dict) and "conversations" in record:
        return _conversation(record, "conversations", "from", "value", "loss")
    raise UsageError("a trajectory has 'messages', 'conversations' or the 'steps' of an episode")


def _conversation(record: dict[str, Any], key: str, role_key: str, text_key: str, learned_key: str) -> Conversation:
    """Read a record whose messages stand under `key`, each with its role, its text and whether it is learned."""
    messages, success = record[key], record.get("success")
    if not isinstance(messages, list):
        raise UsageError(f"{key!r} must be a list of messages, not {messages!r:.40}")
    if not (success is None or isinstance(success, bool)):
        raise UsageError(f"'success' must be true or false, not {success!r:.40}")
    exchanges: list[Exchange] = []
    pending: list[str] = []  # since the last reply
    for number, entry in enumerate(messages, 1):
        where = f"message {number}"
        if not isinstance(entry, dict) or role_key not in entry:
            raise UsageError(f"{where} lacks {role_key!r}: {entry!r:.40}")
        role = entry[role_key]
        if role not in (*AGENT, *OTHERS):
            raise UsageError(f"{where}: {unknown(role_key, role, (*AGENT, *OTHERS))}")
        if entry.get("tool_calls") or entry.get("function_call"):
            raise UsageError(f"{where} calls a tool apart from its text; write the call into {text_key!r}")
        text = _text(entry.get(text_key), text_key, where)
        if role in OTHERS:
            pending.append(text)
            continue
        if not pending:
            raise UsageError(f"{where} is a reply to no message")
        if not text.strip():
            raise UsageError(f"{where} is an empty reply")
        learned = entry.get(learned_key)
        if learned not in (None, False, True):  # 0 and 1 among them
            raise UsageError(f"{where}: {learned_key!r} must be 0 or 1, false or true, not {learned!r:.40}")
        exchanges.append(Exchange("\n".join(pending), text, bool(exchanges), learned is None or bool(learned)))
        pending = []
    if not exchanges:
        raise UsageError("there is no reply in it")
    name = record.get("id", record.get("item_id", ""))
    return Conversation(tuple(exchanges), success, str(name))


def _text(content: Any, key: str, where: str) -> str:
    """Return the text of a message, which may be in parts."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    for part in parts:
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise UsageError(f"{where}: {key!r} must be text, not {content!r:.40}")
    return "".join(part["text"] for part in parts)

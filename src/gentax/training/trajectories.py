"""Files of trajectories, for imitation: conversations of any agent, and gentax's own episodes.

Three kinds of record are read, as a list in JSON or one a line (JSONL), plain or gzipped:

- `{"messages": [{"role": "system" | "user" | "tool" | "assistant", "content": "…"}, …]}`, as for OpenAI's fine-tuning
  and TRL. `"weight": 0` at an assistant's message: read, not learned.
- `{"conversations": [{"from": "system" | "human" | "gpt", "value": "…"}, …]}`, as in AgentTraj-L (arXiv 2406.04151)
  and ShareGPT. `"loss": false` at a message of `gpt`: read, not learned.
- the episodes that gentax writes (`core/record.py`), also by the folder that holds them.

`"success": false` at a record of the first two says that its agent failed; one that says nothing succeeded. What the
agent says is kept word for word, in whatever grammar. All that stands between two replies is one message: a system's
message is joined to the user's, several messages in a row are joined by a line's end, and what follows the last reply
is left out. What is refused, with the file, its line and the reason: calls of tools apart from the text, pictures,
a reply that nobody asked for, and an empty one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gentax.core import Episode, UsageError
from gentax.core.errors import unknown
from gentax.core.record import NAME, from_json, read_episodes, unpacked
from gentax.training.example import Exchange

AGENT, OTHERS = ("assistant", "gpt"), ("system", "developer", "user", "human", "tool", "function", "observation")
SUFFIXES = (".json", ".jsonl", ".gz")


@dataclass(frozen=True)
class Conversation:
    """What an agent was told and what it said."""

    exchanges: tuple[Exchange, ...]
    success: bool | None  # None where the file does not say


def holds_trajectories(what: str) -> bool:
    """Return whether `what` names a file of trajectories (or a folder of episodes), there or not, and no policy."""
    path = Path(what)
    return "://" not in what and (path.is_file() or (path / NAME).is_file() or path.name.endswith(SUFFIXES))


def read_trajectories(path: str | Path) -> list[Conversation | Episode]:
    """Read a file of trajectories.

    Raises:
        UsageError: no such file, or one that holds something else; the file, its line and what is wrong are named.
    """
    path = Path(path)
    if path.is_dir():
        return list(read_episodes(path))
    if not path.is_file():
        near = [str(other) for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise unknown("file of trajectories", path, [name for name in near if name.endswith(SUFFIXES)])
    packed = path.read_bytes()
    if packed[:2] == b"\x1f\x8b":
        text = unpacked(packed, path)
    else:
        try:
            text = packed.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UsageError(f"{path} is not a file of trajectories: it is not text") from None
    found: list[Conversation | Episode] = []
    try:
        for line, record in _records(text):
            try:
                found.append(_trajectory(record))
            except UsageError as fault:
                raise UsageError(f"{path}, line {line}: {fault}") from None
    except json.JSONDecodeError as fault:
        raise UsageError(f"{path}, line {fault.lineno}, is not JSON: {fault.msg}") from None
    except RecursionError:
        raise UsageError(f"{path} is not a file of trajectories: it is nested too deep") from None
    if not found:
        raise UsageError(f"{path} holds no trajectory")
    return found


def _records(text: str) -> Iterator[tuple[int, Any]]:
    """Yield the values in a JSON list, or those of the lines, with the line that each begins in."""
    if not text.lstrip().startswith("["):
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError as fault:  # which counts the lines of this line
                    fault.lineno = number
                    raise
        return
    decoder = json.JSONDecoder()
    at = _past(text, text.index("[") + 1)
    number, counted = 1, 0
    while text[at : at + 1] != "]":
        number, counted = number + text.count("\n", counted, at), at
        value, at = decoder.raw_decode(text, at)
        yield number, value
        at = _past(text, at)
        if text[at : at + 1] == ",":
            at = _past(text, at + 1)
        elif text[at : at + 1] != "]":
            raise json.JSONDecodeError("a comma or the end of the list was expected", text, at)
    if _past(text, at + 1) < len(text):
        raise json.JSONDecodeError("something follows the list", text, at + 1)


def _past(text: str, at: int) -> int:
    """Return where the white space from `at` on ends."""
    while text[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    return at


def _trajectory(record: Any) -> Conversation | Episode:
    if isinstance(record, dict) and "steps" in record:
        return from_json(record)
    if isinstance(record, dict) and "messages" in record:
        return _conversation(record, "messages", "role", "content", "weight")
    if isinstance(record, dict) and "conversations" in record:
        return _conversation(record, "conversations", "from", "value", "loss")
    raise UsageError("a trajectory has 'messages', 'conversations' or the 'steps' of an episode")


def _conversation(record: dict[str, Any], key: str, who: str, what: str, learned: str) -> Conversation:
    """Read a record whose messages, under `key`, say under `who` whose they are, and so on."""
    messages, success = record[key], record.get("success")
    if not isinstance(messages, list):
        raise UsageError(f"{key!r} must be a list of messages, not {messages!r:.40}")
    if not (success is None or isinstance(success, bool)):
        raise UsageError(f"'success' must be true or false, not {success!r:.40}")
    exchanges: list[Exchange] = []
    told: list[str] = []  # since the last reply
    for number, message in enumerate(messages, 1):
        where = f"message {number}"
        if not isinstance(message, dict) or who not in message:
            raise UsageError(f"{where} lacks {who!r}: {message!r:.40}")
        if message[who] not in (*AGENT, *OTHERS):
            raise UsageError(f"{where}: {unknown(who, message[who], (*AGENT, *OTHERS))}")
        if message.get("tool_calls") or message.get("function_call"):
            raise UsageError(f"{where} calls a tool apart from its text; write the call into {what!r}")
        text = _text(message.get(what), what, where)
        if message[who] in OTHERS:
            told.append(text)
            continue
        if not told:
            raise UsageError(f"{where} is a reply to no message")
        if not text.strip():
            raise UsageError(f"{where} is an empty reply")
        counts = message.get(learned)
        if counts not in (None, False, True):  # 0 and 1 among them
            raise UsageError(f"{where}: {learned!r} must be 0 or 1, false or true, not {counts!r:.40}")
        exchanges.append(Exchange("\n".join(told), text, bool(exchanges), counts is None or bool(counts)))
        told = []
    if not exchanges:
        raise UsageError("there is no reply in it")
    return Conversation(tuple(exchanges), success)


def _text(content: Any, what: str, where: str) -> str:
    """Return the text of a message, which may be in parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise UsageError(f"{where}: {what!r} must be text, not {content!r:.40}")
    for part in content:
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise UsageError(f"{where} holds a part that is not text: {part!r:.40}")
    return "".join(part["text"] for part in content)

"""What a chat-completions server says, as the text of a reply. A server may say anything; nothing here raises.

A reply ends at its first `</action>`, as a local model's does. Servers are asked to stop there, and most then leave
the mark itself out: it is put back. A thought that the server has split off is put back as `<think>…</think>`. Tags
that are merely quoted in such a thought become `[action]` and the like, so that they are not read as the action.

In the other action formats nothing is stopped at. A call that the server has split off is written behind the words.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from gentax.models.action_format import ACTION, ACTION_END, THINK, THINK_END, write_reply
from gentax.models.tool_calls import ARGUMENT, CALL_ID, CALLS_READ, NAME, call_of

TEXT_LIMIT = 1 << 16  # characters of an answer, and of a thought, that are read
_TAG = re.compile(r"<(/?(?:think|action))>")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a server."""

    text: str
    written: int | None  # tokens, the thought's included; None where the server does not say
    cut_off: bool  # whether the mark at which the server was to stop came up in a thought: there is no answer yet
    truncated: bool = False  # whether it ended because it may have no more tokens
    call_id: str = ""  # the server's name for the call of the tool, where it made one


def read_json(content: bytes) -> Any:
    """Return the JSON value in `content`, or None where there is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def is_answer(body: Any) -> bool:
    """Return whether `body` is what a server sends that has answered, oddly or not."""
    return isinstance(body, dict) and isinstance(body.get("choices"), list)


def read_answer(body: dict[str, Any], stopping: bool, action_format: str = "tags") -> Answer:
    """Read an answer.

    Args:
        body: what `is_answer` accepts.
        stopping: whether the server was asked to stop at `</action>`.
        action_format: how the action is said.
    """
    choice = _dict(body["choices"][0] if body["choices"] else None)
    message = _dict(choice.get("message"))
    content = _text(message.get("content"))
    thought = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
    ended = choice.get("finish_reason") != "length"
    written = _dict(body.get("usage")).get("completion_tokens")
    if isinstance(written, bool) or not isinstance(written, int) or written < 0:
        written = None
    action, call_id = _call(message.get("tool_calls")) if action_format == "tool_calls" else (None, "")
    if action is not None:
        content += write_reply(action, None, action_format)
    if thought and not content.strip():
        if not ended:
            return Answer(THINK + _quoted(thought), written, False, True)
        if stopping:
            return Answer("", written, True)
        content, thought = thought, ""  # it ended its turn by itself: the server has misfiled the answer as a thought
    if action_format == "tags":
        content = _one_action(content, close=stopping and ended)
    if thought:
        content = f"{THINK}{_quoted(thought)}{THINK_END}{content}"
    elif THINK not in content.partition(THINK_END)[0] and THINK_END in content:
        content = THINK + content  # some models' templates open the thought in the prompt
    return Answer(content, written, False, not ended, call_id)


def call_message(text: str, action: str, call_id: str) -> dict[str, Any]:
    """Return the answer that called the tool, as it stands in a conversation from then on."""
    call = {"name": NAME, "arguments": json.dumps({ARGUMENT: action})}
    words = text.partition("<tool_call>")[0]
    return {
        "role": "assistant",
        "content": words,
        "tool_calls": [{"id": call_id, "type": "function", "function": call}],
    }


def _call(calls: Any) -> tuple[str | None, str]:
    """Return the action of the last call of the tool, and the call's id; None where there is none."""
    for call in reversed(calls[:CALLS_READ] if isinstance(calls, list) else []):
        if (action := call_of(call)) is not None:
            named = call.get("id")
            return action, clean(named[:64]) if isinstance(named, str) and named else CALL_ID
    return None, ""


def clean(text: str) -> str:
    """Return `text` as it can be sent and kept: lone surrogates are not UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _one_action(content: str, close: bool) -> str:
    before, end, _ = content.partition(ACTION_END)
    return before + ACTION_END if end or (close and ACTION in before) else before


def _quoted(thought: str) -> str:
    return _TAG.sub(r"[\1]", thought)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    if isinstance(value, list):  # parts; only those of text have a "text"
        value = "".join(said for part in value if isinstance(said := _dict(part).get("text"), str))
    return clean(str(value)[:TEXT_LIMIT]) if isinstance(value, (str, int, float)) else ""

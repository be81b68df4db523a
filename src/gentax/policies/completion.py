"""Parsing what an OpenAI-compatible server answers: the reply, or why there is none.

Responses are plain JSON, since servers send much that no schema allows; nothing in one
makes the parser raise. An answer that holds no reply (no choice, an error in its place, a filtered one) is the server's
failure and never the model's.

A reply ends at its first `</action>`, as a local model's does. Servers stop there, and most then omit the stop string,
which is restored. Separate reasoning is restored as `<think>…</think>`; tags quoted in it become `[action]` and the
like, so that they are not parsed as the action. Other action formats have no stop string; a separate tool call is
appended to the text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from gentax.models.action_format import (
    ACTION,
    ACTION_END,
    CALL_ID,
    MAX_TOOL_CALLS,
    THINK,
    THINK_END,
    TOOL_ARGUMENT,
    TOOL_NAME,
    action_of_call,
    write_reply,
)

TEXT_LIMIT = 1 << 16  # characters of an answer, and of its reasoning, that are read
FAILED = ("content_filter", "error")  # values of finish_reason: what the model wrote was not handed on
_TAG = re.compile(r"<(/?(?:think|action))>")


@dataclass(frozen=True, slots=True)
class ChatCompletion:
    """A parsed completion."""

    text: str
    written: int | None  # tokens, reasoning included; None where the server does not say
    cut_off: bool  # the stop string occurred within the reasoning: there is no answer yet
    truncated: bool = False  # cut off at max_tokens
    call_id: str = ""  # of the tool call, if any


def read_json(content: bytes) -> Any:
    """Return the JSON value in `content`, or None."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def is_completion(body: Any) -> bool:
    """Return whether `body` is a completion, however odd."""
    return isinstance(body, dict) and isinstance(body.get("choices"), list)


def missing_reply(body: dict[str, Any]) -> str:
    """Return why a completion holds no reply, or "" where it holds one, if an empty one."""
    if not body["choices"]:
        return "answers without a choice"
    choice = _dict(body["choices"][0])
    if (error := choice.get("error")) is not None:
        message = _dict(error).get("message")
        return f"answers with an error in place of a reply: {message if isinstance(message, str) else error}"
    if choice.get("finish_reason") in FAILED:
        return f"gave no reply: its finish_reason is {choice['finish_reason']}"
    if not isinstance(choice.get("message"), dict) and not isinstance(choice.get("text"), str):
        return "answers with a choice that holds no message"
    return ""


def count_tokens(body: Any) -> tuple[int, int] | None:
    """Return the tokens of the prompt and of the reply, or None where the server does not say."""
    usage = _dict(_dict(body).get("usage"))
    prompt, written = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    return None if prompt is None or written is None else (prompt, written)


def parse_completion(body: dict[str, Any], stopping: bool, action_format: str = "tags") -> ChatCompletion:
    """Parse a completion.

    Args:
        body: a completion that holds a reply (see `missing_reply`), of the chat or of the completions API.
        stopping: whether the request had the stop string `</action>`.
        action_format: see `action_format.py`.
    """
    choice = _dict(body["choices"][0])
    message = _dict(choice.get("message"))
    content = _text(message.get("content") if message else choice.get("text"))
    thought = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
    ended = choice.get("finish_reason") != "length"
    written = _count(_dict(body.get("usage")).get("completion_tokens"))
    action, call_id = _call(message.get("tool_calls")) if action_format == "tool_calls" else (None, "")
    if action is not None:
        content += write_reply(action, None, action_format)
    if thought and not content.strip():
        if not ended:
            return ChatCompletion(THINK + _escape_tags(thought), written, False, True)
        if stopping:
            return ChatCompletion("", written, True)
        content, thought = thought, ""  # it ended by itself: the server misfiled the answer as reasoning
    if action_format == "tags":
        content = _cut_after_action(content, close=stopping and ended)
    if thought:
        content = f"{THINK}{_escape_tags(thought)}{THINK_END}{content}"
    elif THINK not in content.partition(THINK_END)[0] and THINK_END in content:
        content = THINK + content  # some chat templates open the thought in the prompt
    return ChatCompletion(content, written, False, not ended, call_id)


def tool_call_message(text: str, action: str, call_id: str) -> dict[str, Any]:
    """Return the assistant message of a reply that called the tool."""
    call = {"name": TOOL_NAME, "arguments": json.dumps({TOOL_ARGUMENT: action})}
    words = text.partition("<tool_call>")[0]
    return {
        "role": "assistant",
        "content": words,
        "tool_calls": [{"id": call_id, "type": "function", "function": call}],
    }


def _call(calls: Any) -> tuple[str | None, str]:
    """Return the action of the last tool call, and its id; None where there is none."""
    for call in reversed(calls[:MAX_TOOL_CALLS] if isinstance(calls, list) else []):
        if (action := action_of_call(call)) is not None:
            named = call.get("id")
            return action, clean(named[:64]) if isinstance(named, str) and named else CALL_ID
    return None, ""


def clean(text: str) -> str:
    """Replace lone surrogates, which are not UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _cut_after_action(content: str, close: bool) -> str:
    before, end, _ = content.partition(ACTION_END)
    return before + ACTION_END if end or (close and ACTION in before) else before


def _escape_tags(thought: str) -> str:
    return _TAG.sub(r"[\1]", thought)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    if isinstance(value, list):  # parts; only those of text have a "text"
        value = "".join(text for part in value if isinstance(text := _dict(part).get("text"), str))
    return clean(str(value)[:TEXT_LIMIT]) if isinstance(value, (str, int, float)) else ""

"""Action formats: how a reply says its action, written and read here only.

- `tags`: `<think>…</think><action>…</action>`, or the action alone;
- `json`: one JSON object, `{"thought": "…", "action": "…"}`, or the action alone;
- `tool_calls`: a call of the tool `act`, in the notation of the model's family (see `tool_calls.py`).

A thought that a model writes by itself, `<think>…</think>`, is read as the thought in every format. Replies may be any
string at all; nothing here raises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from gentax.core import unknown

FORMATS = ("tags", "json", "tool_calls")
THINK, THINK_END, ACTION, ACTION_END = "<think>", "</think>", "<action>", "</action>"
OBJECTS_TRIED = 256  # opening braces at which a JSON object is looked for; a reply may be nothing but braces
_ACTION = re.compile(re.escape(ACTION) + r"(.*?)" + re.escape(ACTION_END), re.DOTALL)
_THOUGHT = re.compile(re.escape(THINK) + r"(.*?)" + re.escape(THINK_END), re.DOTALL)


class Parsed(NamedTuple):
    """What a reply says. `action` is "" when there is none to be read."""

    action: str
    thought: str


def write_reply(action: str, thought: str | None = None, action_format: str = "tags") -> str:
    """Write a reply; without a thought when `thought` is None.

    A tool call is written in the notation of Hermes and Qwen here; `ChatCodec.write` uses the model's own.
    """
    if action_format == "json":
        return json.dumps({"action": action} if thought is None else {"thought": thought, "action": action})
    if action_format == "tool_calls":
        from gentax.models.tool_calls import FAMILIES

        thoughts = "" if thought is None else f"{THINK}{thought}{THINK_END}"
        return thoughts + FAMILIES["hermes"].write(action)
    return f"{'' if thought is None else THINK + thought + THINK_END}{ACTION}{action}{ACTION_END}"


def parse_reply(text: str, action_format: str = "tags") -> Parsed:
    """Read the last action and the first thought of `text`."""
    if action_format == "json":
        return parse_json(text)
    if action_format == "tool_calls":
        from gentax.models.tool_calls import parse_any

        return parse_any(text)
    actions = _ACTION.findall(text)
    thought = _THOUGHT.search(text)
    return Parsed(actions[-1].strip() if actions else "", thought.group(1).strip() if thought else "")


def instructions(action_format: str, thinking: bool) -> str:
    """Return the line of a prompt that says how to answer."""
    if action_format == "tool_calls":
        return f"{'Think, then answer' if thinking else 'Answer'} by calling the tool act with your action"
    ask = write_reply("your action", "your thoughts" if thinking else None, action_format)
    return f"Answer {'with one JSON object: ' if action_format == 'json' else ''}{ask}"


def check_format(action_format: str) -> None:
    """Raise UsageError for a format that does not exist."""
    if action_format not in FORMATS:
        raise unknown("action_format", action_format, FORMATS)


def split_thought(text: str) -> tuple[str, str]:
    """Return the first thought, and the text after the last one's end; a thought may have begun in the prompt.

    >>> split_thought("<think>left is free</think> left"), split_thought("left is free</think>left")
    (('left is free', ' left'), ('left is free', 'left'))
    """
    before, end, _ = text.partition(THINK_END)
    if not end:
        return "", text
    found = _THOUGHT.search(text)
    thought = before if THINK not in before or found is None else found.group(1)
    return thought.strip(), text.rpartition(THINK_END)[2]


def thought_is_open(text: str, opened: bool) -> bool:
    """Return whether a reply is still in its thought, which its prompt may have `opened`."""
    return THINK_END not in text and (opened or text.lstrip().startswith(THINK))


def parse_json(text: str) -> Parsed:
    """Read the last JSON object of `text` that has an action: bare, in a code fence or with words around it."""
    thought, rest = split_thought(text)
    for found in reversed(list(objects(rest))):
        action = found.get("action")
        if isinstance(action, (str, int, float)) and not isinstance(action, bool):
            said = found.get("thought")
            return Parsed(_clean(str(action)), _clean(said) if isinstance(said, str) and said.strip() else thought)
    return Parsed("", thought)


def objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in `text` that are in no other one."""
    decoder = json.JSONDecoder(strict=False)  # models break lines within strings
    at = tried = 0
    while (at := text.find("{", at)) >= 0 and tried < OBJECTS_TRIED:
        tried += 1
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        if isinstance(value, dict):
            yield value


def _clean(text: str) -> str:
    """Return text without the lone surrogates that JSON can spell."""
    return text.encode("utf-8", "replace").decode("utf-8").strip()

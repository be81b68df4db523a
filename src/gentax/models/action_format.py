"""The grammar of a reply: `<think>…</think><action>…</action>`, or the action alone. Written and read here only."""

from __future__ import annotations

import re
from typing import NamedTuple

THINK, THINK_END, ACTION, ACTION_END = "<think>", "</think>", "<action>", "</action>"
_ACTION = re.compile(re.escape(ACTION) + r"(.*?)" + re.escape(ACTION_END), re.DOTALL)
_THOUGHT = re.compile(re.escape(THINK) + r"(.*?)" + re.escape(THINK_END), re.DOTALL)


class Parsed(NamedTuple):
    """What a reply says. `action` is "" when there is none to be read."""

    action: str
    thought: str


def write_reply(action: str, thought: str | None = None) -> str:
    """Write a reply; without a thought when `thought` is None."""
    return f"{'' if thought is None else THINK + thought + THINK_END}{ACTION}{action}{ACTION_END}"


def parse_reply(text: str) -> Parsed:
    """Read the last action and the first thought of `text`, which may be any string at all."""
    actions = _ACTION.findall(text)
    thought = _THOUGHT.search(text)
    return Parsed(actions[-1].strip() if actions else "", thought.group(1).strip() if thought else "")

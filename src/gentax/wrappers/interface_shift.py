"""Interface shifts (arXiv 2603.12011): the same actions written another way, the same observation laid out another way.

`Calls` writes an action as a call, `Menu` as a number from a list. Text in the old grammar reaches the environment as
the empty action, which every domain refuses, so that a slip still costs a step. `Layout` cuts an observation into
statements, those with a name before them (`Door: open`, `Box 2,3`) into name and value; no word is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import gymnasium

from gentax.core.env import ExpertAction
from gentax.core.errors import UsageError, unknown
from gentax.wrappers.base import TextWrapper

REFUSED = ""
ENTRIES = 40  # actions listed at most; some environments accept thousands

_PARTICLES = r"(?:to|on|in|at|up|down|off|out|into|onto|around|about|from|over|through)"
_VERB = re.compile(rf"(\w+(?: {_PARTICLES}\b)*)(?: (.+)|\[(.*)\])?", re.DOTALL)
_JOINT = re.compile(r" (to|on|in|into|onto|with|from|using|and) ")
_CALL = re.compile(r"\s*(\w+)\((.*)\)\s*", re.DOTALL)
_CALL_JOINT = re.compile(r", (to|on|in|into|onto|with|from|using|and) ")
_VERBATIM = "do"


def call(action: str) -> str:
    """Write an action as a call; `uncall` gives every string back.

    >>> [call(action) for action in ("up", "go to shelf 1", "move cup to table", "search[red shoes]")]
    ['up()', 'go_to(shelf 1)', 'move(cup, to table)', 'search("red shoes")']
    """
    parts = _VERB.fullmatch(action)
    if parts is not None:
        verb, rest, bracketed = parts.groups()
        inside = _JOINT.sub(r", \1 ", rest or "") if bracketed is None else f'"{bracketed}"'
        written = f"{verb.replace(' ', '_')}({inside})"
        if uncall(written) == action:
            return written
    return f"{_VERBATIM}({action})"  # what has no such form is called by its own words


def uncall(text: str) -> str | None:
    """Read an action that was written as a call, or return None for a text that is no call."""
    parts = _CALL.fullmatch(text)
    if parts is None:
        return None
    verb, inside = parts.groups()
    if verb == _VERBATIM:
        return inside
    verb = verb.replace("_", " ")
    if len(inside) > 1 and inside[0] == inside[-1] == '"':
        return f"{verb}[{inside[1:-1]}]"
    return " ".join((verb, _CALL_JOINT.sub(r" \1 ", inside))) if inside else verb


class Calls(TextWrapper):
    """Takes actions written as calls, `go_to(shelf 1)` for `go to shelf 1`, and nothing else."""

    def transform_action(self, action: str) -> str:
        inner_action = uncall(action)
        return REFUSED if inner_action is None else inner_action

    def transform_rules(self, rules: str) -> str:
        return (
            f"{rules} Write every action as a call: its verb with words joined by _, the rest in brackets, a comma "
            "before a second part. So `look` is look(), `go to door` is go_to(door), `put cup on table` is "
            'put(cup, on table), `find[cup]` is find("cup").'
        )

    def admissible(self) -> list[str] | None:
        actions = self.text_env.admissible()
        return None if actions is None else [call(action) for action in actions]

    def expert(self) -> ExpertAction | None:
        move = self.text_env.expert()
        return None if move is None else move._replace(action=call(move.action))


class Menu(TextWrapper):
    """Numbers the admissible actions below each observation, the first 40 at most; an action is a number.

    `0 ACTION` is any action that is not in the list: text of one's own, or names the domain knows but does not list.
    Listing costs what `admissible` costs: microseconds in most domains, 15 to 90 ms in sciworld.

    Raises:
        UsageError: from `reset`, where the domain cannot list its actions.
    """

    def __init__(self, env: gymnasium.Env[str, str]) -> None:
        super().__init__(env)
        self._entries: list[str] = []
        self._rest: list[str] = []

    def transform_observation(self, observation: str) -> str:
        actions = self.text_env.admissible()
        if actions is None:
            raise UsageError(f"domain {self.domain.name!r} does not list its actions, so there is no menu of them")
        self._entries, self._rest = actions[:ENTRIES], actions[ENTRIES:]
        lines = [f"{number} {entry}" for number, entry in enumerate(self._entries, 1)]
        return "\n".join((observation, *lines, "0 ACTION for any other action"))

    def transform_action(self, action: str) -> str:
        number, _, other = action.strip().partition(" ")
        if number == "0":
            return other.strip()
        known = number.isascii() and number.isdigit() and not other and len(number) < 4
        return self._entries[int(number) - 1] if known and 0 < int(number) <= len(self._entries) else REFUSED

    def transform_rules(self, rules: str) -> str:
        return f"{rules} Choose an action from the numbered list: write its number alone."

    def admissible(self) -> list[str]:
        numbers = [str(number) for number in range(1, len(self._entries) + 1)]
        return numbers + [f"0 {action}" for action in self._rest]

    def expert(self) -> ExpertAction | None:
        move = self.text_env.expert()
        if move is None:
            return None
        listed = move.action in self._entries
        return move._replace(action=str(self._entries.index(move.action) + 1) if listed else f"0 {move.action}")


_END = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")
_NAMED = re.compile(r"([^\W\d][\w ]{0,40}?)(?:: +(.+)| (\d+,\d+(?: \d+,\d+)*)\.?)", re.DOTALL)
_REST = "text"  # the key of what has no name


def statements(text: str) -> list[str]:
    """Cut a text at the ends of its lines and sentences."""
    return [part for part in _END.split(text.strip()) if part]


def prose(text: str) -> str:
    """Return the text as one paragraph; a statement without an end gets one."""
    return " ".join(part if part[-1] in ".!?:;,|" else f"{part}." for part in statements(text))


def listed(text: str) -> str:
    """Return the text as a list with a dash before each statement."""
    return "\n".join([f"- {part}" for part in statements(text)])


def as_json(text: str) -> str:
    """Return the text as a JSON object on one line: names to values, headings to the statements under them."""
    fields: dict[str, list[str]] = {}
    heading = _REST
    for part in statements(text):
        named = _NAMED.fullmatch(part)
        if named:
            fields.setdefault(named[1], []).append(named[2] or named[3])
        elif part.endswith(":"):
            heading = part[:-1] or _REST
            fields.setdefault(heading, [])
        else:
            fields.setdefault(heading, []).append(part)
    return json.dumps(
        {key: value[0] if len(value) == 1 else value for key, value in fields.items()}, ensure_ascii=False
    )


LAYOUTS: dict[str, Callable[[str], str]] = {"prose": prose, "list": listed, "json": as_json}


class Layout(TextWrapper):
    """Lays every observation out as `prose`, a `list` or `json`.

    Raises:
        UsageError: an unknown layout.
    """

    def __init__(self, env: gymnasium.Env[str, str], layout: str) -> None:
        super().__init__(env, layout=layout)
        if layout not in LAYOUTS:
            raise unknown("layout", layout, LAYOUTS)
        self.layout = layout
        self._layout = LAYOUTS[layout]

    def transform_observation(self, observation: str) -> str:
        return self._layout(observation)

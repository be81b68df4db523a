"""The same observation laid out another way: a shift of the observation interface (arXiv 2603.12011).

A text is taken apart into statements, and those with a name before them (`Door: open`, `Box 2,3`) into name and value.
No word is lost. Goal and actions stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import cast

import gymnasium

from gentax.core.errors import UsageError, unknown
from gentax.domains.sokoban.board import Renderer
from gentax.domains.sokoban.env import Sokoban
from gentax.wrappers.base import TextWrapper

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


class SokobanLayout(TextWrapper):
    """Shows Sokoban in another of its own renderings: `coordinates`, `grid` or `both`. The goal explains its signs.

    Beneath it only what leaves the room's own text whole can stand: distractors, but no renaming and no `Layout`.

    Raises:
        UsageError: another domain, an unknown rendering, or (from `reset`) a room that something beneath rewrote.
    """

    def __init__(self, env: gymnasium.Env[str, str], rendering: str) -> None:
        super().__init__(env, rendering=rendering)
        if not isinstance(self.unwrapped, Sokoban):
            raise UsageError(f"SokobanLayout shows rooms of sokoban, not {self.domain.name}: use Layout")
        self._renderer = Renderer(rendering)

    def on_reset(self) -> None:
        self._renderer.set_room(cast(Sokoban, self.unwrapped).room)

    def transform_observation(self, observation: str) -> str:
        room = cast(Sokoban, self.unwrapped)
        own = room.observation.removeprefix("Blocked. ").removeprefix("Unknown action. ")
        if own not in observation:
            raise UsageError("SokobanLayout cannot find the room's text: put it beneath Rename and Layout")
        return observation.replace(own, self._renderer.text(room.state), 1)

    @property
    def goal(self) -> str:
        legend = self._renderer.legend()
        return self.text_env.goal + (f" Legend: {legend}." if legend else "")

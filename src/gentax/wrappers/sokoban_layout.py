"""Sokoban in another of its own renderings, beneath or above distractors."""

from __future__ import annotations

import gymnasium

from gentax.core.errors import UsageError
from gentax.domains.sokoban.env import Sokoban
from gentax.domains.sokoban.render import Renderer
from gentax.wrappers.base import TextWrapper


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

    def enter(self) -> None:
        self._renderer.enter(self.unwrapped.room)

    def view(self, observation: str) -> str:
        room = self.unwrapped
        own = room.observation.removeprefix("Blocked. ").removeprefix("Unknown action. ")
        if own not in observation:
            raise UsageError("SokobanLayout cannot find the room's text: put it beneath Rename and Layout")
        return observation.replace(own, self._renderer.text(room.state), 1)

    @property
    def goal(self) -> str:
        legend = self._renderer.legend()
        return self.text_env.goal + (f" Legend: {legend}." if legend else "")

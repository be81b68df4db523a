"""Single-player games of TextArena as domains: `textarena:GAME`, such as `textarena:Sokoban-v0`.

The player is shown what the game says since the last action; the history is the prompt's affair. A game is won at a
reward of 1 or more. An action without brackets gets them where the game wants them. TextArena draws from Python's
global random numbers; here each game has a state of its own, so that games at once do not disturb each other.

Not supported: games for several players, and those that download word lists or ask a model (they fail with their own
error). Some games start alike whatever the seed: they say so in `caveats`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

import gymnasium

from gentax.core.env import AnyText
from gentax.core.errors import UsageError, type_and_message, unknown
from gentax.core.imports import require

SEEDS_COMPARED = 4  # starts that are compared to see whether a game follows its seed
MESSAGE_LIMIT = 200  # characters of a game's own error


class TextArenaEnv(gymnasium.Env[str, str]):
    """Play a single-player game of TextArena.

    Args:
        game: its id, such as `Sokoban-v0`.

    Raises:
        UsageError: TextArena is not installed, there is no such game, or it cannot be played here by one player.
    """

    observation_space = action_space = AnyText()
    rules = "Play the game. Each turn, read what it says and answer with one move in the form that it asks for."

    def __init__(self, game: str) -> None:
        self._library, self._game = require("textarena", f"textarena:{game}"), game
        known = self._library.envs.registration.ENV_REGISTRY
        if game not in known:
            raise unknown("game of textarena", game, known)
        self._random = random.getstate()
        starts = {self._content(self._start(seed)) for seed in range(SEEDS_COMPARED)}
        self._follows_seed = len(starts) > 1
        self.horizon: int | None = self._state.max_turns
        self.caveats = (
            [] if self._follows_seed else ["its start does not follow the seed: its tasks may be one and the same"]
        )

    @contextmanager
    def _own_random(self) -> Iterator[None]:
        """Give the game its own random numbers, and nobody the lines that it prints."""
        before = random.getstate()
        random.setstate(self._random)
        try:
            with redirect_stdout(StringIO()):
                yield
        finally:
            self._random = random.getstate()
            random.setstate(before)

    def _start(self, seed: int) -> Any:
        """Start a game, a new one since some keep what the last one left; return its state."""
        with self._own_random():
            random.seed(seed)
            try:
                self._env = self._library.make(self._game)
                self._env.reset(num_players=1, seed=seed)
            except Exception as error:
                why = type_and_message(error, MESSAGE_LIMIT)
                raise UsageError(f"textarena:{self._game} cannot be played here by one player: {why}") from error
        if not hasattr(self._env.state, "error_count"):
            raise UsageError(f"textarena:{self._game} is no game for a single player")
        self._state = self._env.state
        return self._state

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._start(int(self.np_random.integers(1 << 31)) if seed is None else seed)
        content = self._content(self._state) if self._follows_seed else None
        messages = self._messages()
        goal = messages[0] if len(messages) > 1 else "Win the game."
        shown = "\n".join(messages[1:] or messages)
        return shown, {"goal": goal} | ({} if content is None else {"content": content})

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        errors = self._state.error_count
        with self._own_random():
            done, _ = self._env.step(action)
        valid = self._state.error_count <= errors and not self._state.game_info[0].get("invalid_move")
        reward = float((self._state.rewards or {}).get(0, 0.0)) if done else 0.0
        info = {"success": bool(done and reward >= 1), "valid": bool(valid)}
        shown = "\n".join(self._messages()) or ("The game is over." if done else "Nothing is said.")
        return shown, min(max(reward, 0.0), 1.0), bool(done), False, info

    def _messages(self) -> list[str]:
        """Return what the game has said since the last time, without the player's own action."""
        said = self._state.get_current_player_observation()
        texts = [str(text).strip() for speaker, text, *_ in said if speaker != 0]
        return [text for text in texts if text]

    def _content(self, state: Any) -> str:
        """Return what a game just begun is made of: its state, in which its secrets are, and what it says."""
        said = [str(message[1]) for message in state.observations[0]]
        return repr((_canonical(state.game_state), said))


def _canonical(value: Any) -> Any:
    """Return `value` without what differs from process to process: the order of sets and the addresses of objects."""
    if isinstance(value, dict):
        return sorted((repr(_canonical(key)), _canonical(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_canonical(item)) for item in value)
    if " at 0x" in repr(value):
        return type(value).__name__, _canonical(getattr(value, "__dict__", {}))
    return repr(value)

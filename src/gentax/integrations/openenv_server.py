"""A domain behind an OpenEnv server: what `uvicorn --factory` serves, and what OpenEnv's clients and trainers speak to.

    app = openenv_app("sokoban", wrap_with=["distract(volume=80)"], max_sessions=8)

The action has one field, `text`; the observation has `text`, `goal`, `valid` and `success`, with OpenEnv's own `done`
and `reward`. `reset(task="sokoban/6x6/test/3")` starts that task, `reset(seed=7)` one drawn from the split.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gentax.core import Task
from gentax.core.imports import require
from gentax.wrappers.spec import make_wrapped


def openenv_app(domain: str, wrap_with: Iterable[str] = (), max_sessions: int = 8, **settings: Any) -> Any:
    """Return a FastAPI application that serves a domain, each session an environment of its own.

    Args:
        domain: what `gentax.make` takes.
        wrap_with: distractors and interface shifts.
        max_sessions: episodes played at once.
        settings: of `gentax.make`: level, split, reward, horizon.

    Raises:
        UsageError: OpenEnv is not installed; as `gentax.make`.
    """
    server: Any = require("openenv.core.env_server", "an OpenEnv server")
    wrappers = [wrap_with] if isinstance(wrap_with, str) else list(wrap_with)
    make_wrapped(domain, wrappers, **settings).close()  # what is wrong is said now, and not to the first client

    class TextAction(server.Action):  # type: ignore[misc]  # OpenEnv need not be installed
        text: str

    class TextObservation(server.Observation):  # type: ignore[misc]
        text: str
        goal: str
        valid: bool = True
        success: bool = False

    class TextEnvironment(server.Environment):  # type: ignore[misc]
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self) -> None:
            super().__init__()
            self._env = make_wrapped(domain, wrappers, **settings)
            self._state = server.State()

        def reset(self, seed: int | None = None, episode_id: str | None = None, **options: Any) -> Any:
            if (task := options.pop("task", None)) is not None:
                options["task"] = Task.parse(task)
            text, info = self._env.reset(seed=seed, options=options)
            self._goal = info["goal"]
            self._state = server.State(episode_id=episode_id or info["task"].id, step_count=0)
            return TextObservation(text=text, goal=self._goal, metadata={"task": info["task"].id})

        def step(self, action: Any, timeout_s: float | None = None, **options: Any) -> Any:
            text, reward, terminated, truncated, info = self._env.step(action.text)
            self._state.step_count += 1
            done = terminated or truncated
            return TextObservation(
                text=text, goal=self._goal, done=done, reward=reward, valid=info["valid"], success=info["success"]
            )

        @property
        def state(self) -> Any:
            return self._state

        def close(self) -> None:
            self._env.close()

    return server.create_fastapi_app(
        TextEnvironment, TextAction, TextObservation, max_concurrent_envs=max_sessions, env_name=domain
    )

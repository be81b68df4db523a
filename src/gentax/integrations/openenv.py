"""OpenEnv: environments behind its servers as domains, `openenv:http://localhost:8000`, and a server of our domains.

As a domain: the server's schema says how an action is written: it must have exactly one required field, a string, which
gets the action. Of an observation the text is shown (`text`, or the first string of the names in `TEXT_FIELDS`), and
`goal`, `valid` and `success` are read where they are there. Whether a server follows its seed nobody can say: `gentax
check` compares starts. One session is open at a time. Not supported: actions with several fields, and starting a server
or a container.

A server of ours, which `uvicorn --factory` runs and OpenEnv's clients and trainers speak to:

    app = openenv_app("sokoban", wrap_with=["distract(volume=80)"], max_sessions=8)

Its action has one field, `text`; its observation has `text`, `goal`, `valid` and `success`, with OpenEnv's own `done`
and `reward`. `reset(task="sokoban/6x6/test/3")` starts that task, `reset(seed=7)` one drawn from the split.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import gymnasium

from gentax.core.env import AnyText, Task
from gentax.core.errors import EnvironmentFault, UsageError, type_and_message
from gentax.core.imports import require
from gentax.wrappers.spec import make_wrapped

TEXT_FIELDS = ("text", "observation", "message", "output", "result", "content", "prompt")
SCHEMA_LIMIT = 1 << 20  # bytes
ERROR_LIMIT = 200  # characters of what went wrong
TIMEOUT_S = 60.0


class OpenEnvClientEnv(gymnasium.Env[str, str]):
    """Play an environment behind an OpenEnv server.

    Args:
        url: of the server.

    Raises:
        UsageError: OpenEnv is not installed, no such server, or actions that are more than a text.
    """

    observation_space = action_space = AnyText()
    rules = "Reach the goal. Each turn, read what is shown and answer with one action."
    copies = 1  # sessions at once: all that a server allows unless it says otherwise, which it tells no client

    def __init__(self, url: str) -> None:
        library = require("openenv.core", f"openenv:{url}")
        self._url, self._field = url, _action_field(url)
        self._client: Any = library.GenericEnvClient(base_url=url, message_timeout_s=TIMEOUT_S).sync()
        try:
            self._client.connect()
        except Exception as error:
            raise UsageError(f"openenv:{url} cannot be reached: {type_and_message(error, ERROR_LIMIT)}") from error

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        result = self._asked(lambda: self._client.reset(seed=seed))
        seen = result.observation
        return self._text(seen), {"goal": seen["goal"]} if isinstance(seen.get("goal"), str) else {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        result = self._asked(lambda: self._client.step({self._field: action}))
        seen = result.observation
        info = {name: seen[name] for name in ("valid", "success") if isinstance(seen.get(name), bool)}
        return self._text(seen), float(result.reward or 0.0), bool(result.done), False, info

    def close(self) -> None:
        self._client.close()

    def _asked(self, ask: Any) -> Any:
        try:
            result = ask()
        except Exception as error:
            raise EnvironmentFault(f"openenv:{self._url} fails: {type_and_message(error, ERROR_LIMIT)}") from error
        if not isinstance(result.observation, dict):
            raise EnvironmentFault(f"openenv:{self._url} shows a {type(result.observation).__name__} and no fields")
        return result

    def _text(self, seen: dict[str, Any]) -> str:
        text = next((seen[name] for name in TEXT_FIELDS if isinstance(seen.get(name), str)), None)
        if text is None:
            names = ", ".join(map(str, seen))[:200]
            raise UsageError(f"openenv:{self._url} shows no text: its observation has {names}")
        return text


def _action_field(url: str) -> str:
    """Return the one field of an action, from the schema that the server offers."""
    import urllib3

    try:
        response = urllib3.request(
            "GET", f"{url.rstrip('/')}/schema", timeout=10.0, retries=False, redirect=False, preload_content=False
        )
        content = response.read(SCHEMA_LIMIT)
        response.close()
        action = json.loads(content)["action"]
        required = [name for name in action.get("required", []) if isinstance(name, str)]
        text = [name for name in required if action["properties"][name].get("type") == "string"]
    except (urllib3.exceptions.HTTPError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"openenv:{url} is no OpenEnv server with a schema: {type_and_message(error, ERROR_LIMIT)}"
        ) from error
    if len(required) != 1 or not text:
        names = ", ".join(required)[:200] or "nothing"
        raise UsageError(f"openenv:{url} wants more of an action than one text: {names}")
    return text[0]


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

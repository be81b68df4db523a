"""A `gymnasium.Env` of numbers as one of text: what is shown is described, and actions are chosen by their names.

What is shown comes from `describe(observation)`, an attribute of the environment or of one of its wrappers, or from an
environment that renders itself as text (`render_mode="ansi"`). The names of discrete actions come from its `actions`
(a list of names, or an enumeration), else from the lines `- 0: Move left` that Gymnasium's docstrings have, else they
are the numbers.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from enum import EnumMeta
from typing import Any

import gymnasium
from gymnasium.spaces import Discrete, Text

from gentax.core.errors import UsageError, unknown

_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_ESCAPE = r"\x1b\[[0-9;]*m"
_COLOURED = re.compile(rf"\x1b\[(?:[34](?P<colour>[0-7])|[0-9;]*)m(?P<text>[^\x1b]*){_ESCAPE}")
_SECTION = r"^[ \t]*## {}\s*\n(.*?)(?=^[ \t]*## |\Z)"  # some docstrings are indented unevenly
_ACTION_LINE = re.compile(r"^\s*[-*] (\d+): (.+?)\s*$", re.M)
_ABOUT_LIMIT = 1200  # characters of a docstring that go into the rules


def as_text(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[str, str]:
    """Return `env` itself where it speaks text already, else with its states described and its actions named.

    Raises:
        UsageError: its actions are neither text nor discrete.
    """
    describe = attribute(env, "describe")
    shows_text = isinstance(getattr(env, "observation_space", None), Text)
    if not callable(describe):
        describe = None if shows_text or env.render_mode != "ansi" else lambda observation: env.render()
    actions = getattr(env, "action_space", None)
    if describe is None and not isinstance(actions, Discrete):
        return env
    if actions is not None and not isinstance(actions, (Discrete, Text)):
        raise UsageError(
            f"{env.unwrapped} takes actions of {type(actions).__name__}, which have no names: wrap it with a "
            "gymnasium.ActionWrapper that takes text"
        )
    return DescribedEnv(env, describe or str, action_names(env))


def make_registered(name: str) -> gymnasium.Env[Any, Any]:
    """Make the environment that Gymnasium has registered as `name`, rendering itself as text if it can.

    Raises:
        UsageError: there is none, or it shows neither text nor a text rendering.
    """
    if name not in gymnasium.registry:
        raise unknown("environment of gymnasium", name, gymnasium.registry)
    try:
        env = gymnasium.make(name)
        if isinstance(env.observation_space, Text) or callable(attribute(env, "describe")):
            return env
        modes = env.metadata.get("render_modes", [])
        env.close()
        if "ansi" not in modes:
            raise UsageError(
                f"{name} shows {env.observation_space} and cannot render itself as text: give it a "
                "`describe(observation)` in a factory of your own, module:factory"
            )
        return gymnasium.make(name, render_mode="ansi")
    except (gymnasium.error.Error, ImportError) as error:
        raise UsageError(f"{name} cannot be made: {' '.join(str(error).split())}") from error


def attribute(env: gymnasium.Env[Any, Any], name: str, default: Any = None) -> Any:
    """Return an attribute of an environment or of one of its wrappers."""
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else default


def action_names(env: gymnasium.Env[Any, Any]) -> list[str] | None:
    """Return the names of discrete actions, in their order; None where actions are text."""
    space = getattr(env, "action_space", None)
    if not isinstance(space, Discrete):
        return None
    given = attribute(env, "actions")
    if isinstance(given, EnumMeta):
        given = [member.name for member in given]  # type: ignore[var-annotated]
    if isinstance(given, (list, tuple)) and len(given) >= space.n:
        return [str(name) for name in given[: int(space.n)]]
    documented = dict(_ACTION_LINE.findall(_section(env, "Action Space")))
    numbers = [str(number) for number in range(int(space.start), int(space.start + space.n))]
    return [documented[n] for n in numbers] if set(numbers) <= set(documented) else numbers


def rules_of(env: gymnasium.Env[Any, Any]) -> str:
    """Return the rules that a registered environment's docstring gives: its first sentence and its description."""
    text = inspect.getdoc(type(env.unwrapped)) or ""
    parts = [text.partition("## ")[0].partition("\n\n")[0], _section(env, "Description")]
    return "\n".join(" ".join(part.split()) for part in parts if part.strip())[:_ABOUT_LIMIT]


def _section(env: gymnasium.Env[Any, Any], title: str) -> str:
    found = re.search(_SECTION.format(title), inspect.getdoc(type(env.unwrapped)) or "", re.M | re.S)
    return found[1] if found else ""


class DescribedEnv(gymnasium.Wrapper[str, str, Any, Any]):
    """Describes the states of an environment and takes the names of its actions.

    A text that names no action is refused (`info["valid"]` is False) and the environment does not move.

    Args:
        env: the environment.
        describe: an observation as text.
        names: of its discrete actions, in order; None where it takes text.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], describe: Callable[[Any], object], names: list[str] | None
    ) -> None:
        super().__init__(env)
        self._describe, self._names = describe, names
        self._numbers = {name.lower(): number for number, name in enumerate(names or [])}
        self._shown = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._shown = self._text(observation)
        return self._shown, self._listed(info)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        number: Any = action
        if self._names is not None:
            number = self._numbers.get(action.strip().lower())
            if number is None:
                return self._shown, 0.0, False, False, self._listed({"valid": False, "success": False})
            number += int(self.env.action_space.start)  # type: ignore[attr-defined]
        observation, reward, terminated, truncated, info = self.env.step(number)
        self._shown = self._text(observation)
        info = self._listed(info if self._names is None else {"valid": True, **info})
        return self._shown, float(reward), bool(terminated), bool(truncated), info

    def _text(self, observation: Any) -> str:
        return _COLOURED.sub(_name_colour, str(self._describe(observation)))

    def _listed(self, info: dict[str, Any]) -> dict[str, Any]:
        return info if self._names is None else {"admissible": self._names, **info}


def _name_colour(match: re.Match[str]) -> str:
    """What a terminal shows in colour says so in words."""
    return f"[{_COLOURS[int(match['colour'])]} {match['text']}]" if match["colour"] else f"[{match['text']}]"

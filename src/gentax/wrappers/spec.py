"""Wrappers by name, as settings and the command line write them: `distract(volume=80, probability=0.5)`, `menu`.

A description is read as a call with literal arguments and nothing else; none of it is evaluated.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from typing import Any

import gymnasium

from gentax.core.errors import UsageError, unknown
from gentax.domains.registry import make
from gentax.wrappers.base import Horizon, Shaping, TextWrapper
from gentax.wrappers.distractors import Distractor
from gentax.wrappers.interface_shift import Calls, Layout, Menu, Rename

WRAPPERS: dict[str, type[TextWrapper]] = {
    "calls": Calls,
    "distract": Distractor,
    "horizon": Horizon,
    "layout": Layout,
    "menu": Menu,
    "rename": Rename,
    "shaping": Shaping,
}


def parse_wrapper(text: str) -> tuple[type[TextWrapper], dict[str, Any]]:
    """Read one description; return the class and its settings by name.

    >>> parse_wrapper("distract(volume=80)")[1]
    {'volume': 80}
    >>> parse_wrapper("layout(json)")[1]
    {'layout': 'json'}

    Raises:
        UsageError: an unknown wrapper or setting, or a text that is not of the form `name(key=value, …)`.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if isinstance(call, ast.Name):
            call = ast.Call(call, [], [])
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        values = [_literal(node) for node in call.args]
        named = {word.arg: _literal(word.value) for word in call.keywords}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UsageError(
            f"cannot read the wrapper {text[:80]!r}: write a name, with settings in brackets, as in distract(volume=80)"
        ) from None
    name = call.func.id
    if name not in WRAPPERS:
        raise unknown("wrapper", name, WRAPPERS)
    known = list(inspect.signature(WRAPPERS[name]).parameters)[1:]  # without the environment
    if len(values) > len(known):
        raise UsageError(f"the wrapper {name} takes {len(known)} settings, not {len(values)}")
    settings = dict(zip(known, values, strict=False))
    for key, value in named.items():
        if key not in known:
            raise unknown(f"setting of {name}", key, known)
        if key in settings:
            raise UsageError(f"the wrapper {name} is given {key} twice")
        settings[key] = value
    return WRAPPERS[name], settings


def _literal(node: ast.expr) -> Any:
    """Return the value of a literal; a bare word is itself."""
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def wrap(env: gymnasium.Env[str, str], descriptions: Iterable[str]) -> gymnasium.Env[str, str]:
    """Return `env` in wrappers, the first description innermost.

    >>> env = wrap(gentax.make("sokoban"), ["distract(volume=80)", "menu"])  # doctest: +SKIP

    Raises:
        UsageError: a description that cannot be read, or a wrapper that refuses its settings or this environment;
            `env` is then closed.
    """
    try:
        for text in descriptions:
            kind, settings = parse_wrapper(text)
            try:
                env = kind(env, **settings)
            except TypeError as error:
                raise UsageError(f"the wrapper {text[:80]!r} cannot be made: {error}") from None
    except UsageError:
        env.close()
        raise
    return env


def make_wrapped(domain: str, wrap_with: Iterable[str] = (), **settings: Any) -> gymnasium.Env[str, str]:
    """Make an environment in wrappers; what `gymnasium.make("gentax/Sokoban-v0", wrap_with=["menu"])` calls.

    Raises:
        UsageError: as `gentax.make` and `wrap`.
    """
    return wrap(make(domain, **settings), [wrap_with] if isinstance(wrap_with, str) else wrap_with)

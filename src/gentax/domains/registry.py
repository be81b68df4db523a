"""Names to domains. A domain is found here, in an entry point of another package, or as `module:factory`.

Only a domain's record is loaded before somebody makes an environment of it.
"""

from __future__ import annotations

import importlib
from functools import cache, partial
from importlib.metadata import entry_points
from typing import Any, cast

import gymnasium
from gymnasium.envs.registration import EnvSpec

from gentax.core.env import Domain, TextEnv
from gentax.core.errors import UsageError, unknown
from gentax.core.imports import not_installed
from gentax.domains.external import ExternalEnv, check_settings, load_external

BUILT_IN = {  # name -> where its record is
    "sokoban": "gentax.domains.sokoban:DOMAIN",
    "sciworld": "gentax.domains.sciworld:DOMAIN",
    "crafting": "gentax.domains.crafting:DOMAIN",
    "webshop": "gentax.domains.webshop:DOMAIN",
    "babyai": "gentax.domains.babyai:DOMAIN",
    "alfworld": "gentax.domains.alfworld:DOMAIN",
    "twx-cooking": "gentax.domains.twx:COOKING_DOMAIN",
    "twx-mapreader": "gentax.domains.twx:MAPREADER_DOMAIN",
}
ENTRY_POINTS = "gentax.domains"  # the group in which other packages name their `Domain` records


def gymnasium_id(name: str) -> str:
    """Return the id under which Gymnasium knows a domain.

    >>> gymnasium_id("twx-cooking")
    'gentax/TwxCooking-v0'
    """
    return f"gentax/{name.title().replace('-', '')}-v0"


def register_with_gymnasium() -> None:
    """Let `gymnasium.make` know our domains, with any wrappers: `gymnasium.make(id, wrap_with=["menu"])`."""
    for name in BUILT_IN:
        gymnasium.register(gymnasium_id(name), entry_point="gentax.wrappers.spec:make_wrapped", kwargs={"domain": name})


@cache
def domains() -> dict[str, Domain]:
    """Return every registered domain by name, whether or not it can run on this machine."""
    found = {}
    for name, path in BUILT_IN.items():
        module, _, attribute = path.partition(":")
        found[name] = getattr(importlib.import_module(module), attribute)
    for point in entry_points(group=ENTRY_POINTS):
        record = point.load()
        if not isinstance(record, Domain):
            raise UsageError(f"entry point {point.name!r} of group {ENTRY_POINTS!r} is not a gentax Domain")
        found.setdefault(record.name, record)
    return found


def domain(name: str) -> Domain:
    """Return the domain called `name`: a registered one, or `module:factory`. Raises UsageError."""
    return _find(name).record


def _find(name: str) -> ExternalEnv:
    known = domains()
    if name in known:
        return ExternalEnv(known[name], partial(_make_registered, known[name]))
    if ":" in name:
        return load_external(name, tuple(known))
    raise unknown("domain", name, known)


def missing_modules(record: Domain) -> tuple[str, ...]:
    """Return the modules that `record` needs and this machine does not have."""
    return not_installed(*record.requires)


def make(name: str, level: str | None = None, **settings: Any) -> TextEnv:
    """Make an environment: `gymnasium.Env` with text in and text out.

    Args:
        name: a registered domain, or `module:factory`.
        level: one of its levels; its default level when None.
        settings: `split`, `reward`, `horizon` (see `TextEnv`) and what the domain itself takes.

    Raises:
        UsageError: an unknown domain, level or setting, or a domain whose requirements are not installed.
    """
    record, factory = _find(name)
    if lacking := missing_modules(record):
        raise UsageError(f"domain {name!r} needs {', '.join(lacking)}: {record.enable}")
    return cast(TextEnv, factory(level=level, **settings))


def _make_registered(record: Domain, /, level: str | None, **settings: Any) -> TextEnv:
    module, _, attribute = record.entry.partition(":")
    factory = getattr(importlib.import_module(module), attribute)
    check_settings(factory, record.name, settings)
    env: TextEnv = factory(level=level, **settings)
    env.spec = EnvSpec(id=gymnasium_id(record.name), entry_point=record.entry, kwargs={"level": env.level, **settings})
    return env


def parse_domain(text: str) -> tuple[str, str | None]:
    """Read `NAME`, `NAME:LEVEL`, `module:factory` or `module:factory:LEVEL`; return the name and the level, if any.

    `LIBRARY:URL` has no level.
    """
    name, _, level = text.partition(":")
    if "://" in level:
        return text, None
    if level and name not in domains():
        factory, _, level = level.partition(":")
        name = f"{name}:{factory}"
    return name, level or None


def why_not_untouched(env: TextEnv, split: str) -> str:
    """Say why nobody can claim that the tasks of a split are new to training; nothing where it can be claimed.

    It cannot where there is no such split, or where the environment does not say what its tasks are made of.
    """
    if split not in env.domain.splits or not env.size(split):
        return f"has no {split} split"
    if env.unwrapped.content_of(env.tasks(split, 1)[0]) is None:
        return f"does not say what its tasks are made of (`content`), so that its {split} tasks may be train tasks"
    return ""

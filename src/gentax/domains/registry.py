"""Names to domains. A domain is found here, in an entry point of another package, or as `module:factory`.

Nothing of a domain but its record is loaded before somebody makes one.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from gymnasium.envs.registration import EnvSpec

from gentax.core.env import Domain, TextEnv
from gentax.core.errors import UsageError, unknown
from gentax.domains.external import External, foreign

BUILT_IN = {  # name -> the module that holds its record
    "sokoban": "gentax.domains.sokoban",
    "sciworld": "gentax.domains.sciworld",
    "crafting": "gentax.domains.crafting",
    "webshop": "gentax.domains.webshop",
    "babyai": "gentax.domains.babyai",
    "alfworld": "gentax.domains.alfworld",
    "twx-cooking": "gentax.domains.twx.cooking",
    "twx-mapreader": "gentax.domains.twx.mapreader",
}
ENTRY_POINTS = "gentax.domains"  # the group in which other packages name their `Domain` records


@cache
def domains() -> dict[str, Domain]:
    """Return every registered domain by name, whether or not it can run on this machine."""
    found = {name: importlib.import_module(module).DOMAIN for name, module in BUILT_IN.items()}
    for point in entry_points(group=ENTRY_POINTS):
        record = point.load()
        if not isinstance(record, Domain):
            raise UsageError(f"entry point {point.name!r} of group {ENTRY_POINTS!r} is not a gentax Domain")
        found.setdefault(record.name, record)
    return found


def domain(name: str) -> Domain:
    """Return the domain called `name`: a registered one, or `module:factory` (see `foreign`). Raises UsageError."""
    known = domains()
    if name in known:
        return known[name]
    if ":" in name:
        return _foreign(name).record
    raise unknown("domain", name, known)


def _foreign(name: str) -> External:
    return foreign(name, tuple(domains()))


def missing(record: Domain) -> tuple[str, ...]:
    """Return the modules that `record` needs and this machine does not have."""
    return tuple(name for name in record.requires if importlib.util.find_spec(name) is None)


def make(name: str, level: str | None = None, **settings: Any) -> TextEnv:
    """Make an environment: `gymnasium.Env` with text in and text out.

    Args:
        name: a registered domain, or `module:factory`.
        level: one of its levels; its default level when None.
        settings: `split`, `reward`, `horizon` (see `TextEnv`) and what the domain itself takes.

    Raises:
        UsageError: an unknown domain, level or setting, or a domain whose requirements are not installed.
    """
    record = domain(name)
    lacking = missing(record)
    if lacking:
        raise UsageError(f"domain {name!r} needs {', '.join(lacking)}: {record.enable}")
    if name not in domains():
        return _foreign(name).make(level=level, **settings)
    module, _, attribute = record.entry.partition(":")
    factory = getattr(importlib.import_module(module), attribute)
    _check(factory, name, settings)
    env = factory(level=level, **settings)
    env.spec = EnvSpec(id=f"gentax/{name}-v0", entry_point=record.entry, kwargs={"level": env.level, **settings})
    return env


def _check(factory: Any, name: str, settings: dict[str, Any]) -> None:
    """Raise UsageError unless the constructor takes all `settings`, following it through its base classes."""
    valid = {
        parameter.name
        for cls in inspect.getmro(factory)
        if "__init__" in vars(cls) and issubclass(cls, TextEnv)
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    } - {"level"}
    for key in settings:
        if key not in valid:
            raise unknown(f"setting of {name}", key, valid)

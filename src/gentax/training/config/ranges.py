"""What numbers and words a setting may have; a value outside is refused by its name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from gentax.core import UsageError, unknown


def choice(name: str, value: str, known: Iterable[str]) -> None:
    """Refuse a word that is not in `known`, with the nearest that is."""
    if value not in known:
        raise unknown(f"{name} in the recipe", value, known)


def at_least(least: float, *, names: Iterable[str], **group: Any) -> None:
    """Refuse numbers below `least`, infinite ones and those that are none."""
    _each(group, names, lambda value: least <= value < math.inf, f"at least {least:g}")


def positive(*, names: Iterable[str], **group: Any) -> None:
    """Refuse numbers that are not above 0."""
    _each(group, names, lambda value: 0 < value < math.inf, "more than 0")


def share(*, names: Iterable[str], **group: Any) -> None:
    """Refuse numbers outside 0 to 1."""
    _each(group, names, lambda value: 0 <= value <= 1, "from 0 to 1")


def _each(group: dict[str, Any], names: Iterable[str], fine: Any, what: str) -> None:
    """Check the settings `names` of the one object in `group`, whose key is how it is called; "" is the recipe."""
    ((prefix, settings),) = group.items()
    for name in names:
        value = getattr(settings, name)
        if not fine(value):
            where = name if prefix == "recipe" else f"{prefix}.{name}"
            raise UsageError(f"recipe: {where} must be {what}, not {value}")

"""How a domain is named where a level may follow."""

from __future__ import annotations

from gentax.domains import registry


def read_domain(text: str) -> tuple[str, str | None]:
    """Read `NAME`, `NAME:LEVEL`, `module:factory` or `module:factory:LEVEL`; return the name and the level, if any."""
    name, _, level = text.partition(":")
    if level and name not in registry.domains():
        factory, _, level = level.partition(":")
        name = f"{name}:{factory}"
    return name, level or None

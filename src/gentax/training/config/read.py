"""A recipe from a YAML file, or one that ships with gentax by its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gentax.core import UsageError, unknown
from gentax.core.settings import read_yaml

SHIPPED = Path(__file__).parent.parent / "recipes"


def shipped() -> dict[str, Path]:
    """Return the recipes that come with gentax: name -> file."""
    return {file.stem: file for file in sorted(SHIPPED.glob("*.yaml"))}


def read_values(where: str | Path) -> Mapping[str, Any]:
    """Return the settings that a recipe's file gives. Raises UsageError when there is no such recipe or file."""
    known = shipped()
    file = known.get(str(where), Path(where))
    if not file.exists() and file.suffix not in (".yaml", ".yml"):
        raise unknown("recipe", where, known)
    values = read_yaml(file) or {}
    if not isinstance(values, Mapping):
        raise UsageError(f"{file} is no recipe: it holds no mapping of settings to values")
    return values

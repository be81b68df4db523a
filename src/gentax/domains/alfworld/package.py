"""What the packages hold: rules, wording, floor plans and tables, read without importing `alfworld` itself.

Importing it would make a folder in the user's home and set ALFWORLD_DATA. Its two tables are modules that need nothing
else of it, and are loaded by their files.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any


@cache
def root() -> Path:
    """Return the folder of the alfworld package."""
    return Path(importlib.util.find_spec("alfworld").submodule_search_locations[0])


@cache
def rules() -> str:
    """Return the rules of the world, in PDDL."""
    return (root() / "data" / "alfred.pddl").read_text(encoding="utf-8")


@cache
def wording() -> str:
    """Return the grammar that the engine's texts are made with."""
    return (root() / "data" / "alfred.twl2").read_text(encoding="utf-8")


@cache
def tables() -> ModuleType:
    """Return the module of what fits where, what can be heated, and which floor plans are for testing."""
    return _module("constants")


@cache
def goals() -> Mapping[str, Mapping[str, Any]]:
    """Return, by task type, the goal in PDDL and the ways to say it."""
    return _module("goal_library").gdict


def floor_plan(number: int) -> tuple[dict[str, list[float]], list[str]]:
    """Return the receptacles of a floor plan, each with where one stands to use it, and the kinds of all its things."""
    folder = root() / "gen" / "layouts"
    where, things = (
        json.loads((folder / f"FloorPlan{number}-{what}.json").read_text(encoding="utf-8"))
        for what in ("openable", "objects")
    )
    return where, things


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"gentax_alfworld_{name}", root() / "gen" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

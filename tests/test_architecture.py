"""The house: a room imports only from the rooms above it, `import gentax` is light, and nothing is unpickled."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gentax

ROOT = Path(gentax.__file__).parent
ROOMS = [
    "core",
    "domains",
    "wrappers",
    "models",
    "policies",
    "rollouts",
    "training",
    "metrics",
    "evals",
    "report",
    "studies",
    "cli",
]


def imports(file: Path) -> set[str]:
    """The rooms a file imports, at whatever depth."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("gentax.")}
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_the_rooms_above_it(room):
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    for file in (ROOT / room).rglob("*.py"):
        below = imports(file) & set(ROOMS) - allowed
        assert not below, f"{file.relative_to(ROOT)} imports from {sorted(below)}"


@pytest.mark.parametrize(
    ("room", "other"), [("metrics", "training"), ("training", "metrics"), ("evals", "training"), ("training", "evals")]
)
def test_measuring_and_training_do_not_need_each_other(room, other):
    for file in (ROOT / room).rglob("*.py"):
        assert other not in imports(file), f"{file.relative_to(ROOT)} imports from {other}"


def test_every_room_is_in_the_list():
    assert {p.name for p in ROOT.iterdir() if p.is_dir() and p.name != "__pycache__"} <= set(ROOMS)


def test_import_loads_nothing_heavy():
    heavy = ("torch", "transformers", "scipy", "sklearn", "matplotlib", "openai")
    code = f"import sys, gentax; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_public_name_is_there():
    for name in gentax.__all__:
        assert getattr(gentax, name) is not None
    with pytest.raises(AttributeError):
        gentax.no_such_name  # noqa: B018


def test_nothing_is_unpickled():
    for file in ROOT.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "import pickle" not in text
        assert "torch.load(" not in text


def test_public_names_stay_what_they_are_when_every_room_is_loaded():
    rooms = ", ".join(f"gentax.{room}" for room in ROOMS if (ROOT / room).is_dir())
    code = f"import {rooms}; import gentax; print([n for n in gentax.__all__ if not callable(getattr(gentax, n))])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"

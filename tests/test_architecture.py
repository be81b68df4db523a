"""The house: a room imports only from the rooms above it, `import gentax` is light, and nothing is unpickled."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import subprocess
import sys
from functools import cache
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
    "integrations",
    "report",
    "studies",
    "cli",
]


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports(file: Path) -> set[str]:
    """The rooms a file imports, at whatever depth."""
    found = set()
    for node in ast.walk(parsed(file)):
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


def imported_files(name: str, file: Path, modules: dict[str, Path]) -> set[str]:
    """The modules of gentax that a file imports, at whatever depth; what only type checkers import does not count."""
    found = set()
    nodes: list[ast.AST] = [parsed(file)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {module if module in modules else node.module for module in whole}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        nodes += ast.iter_child_nodes(node)
    return (found & set(modules)) - {name}


def test_there_are_no_import_cycles():
    modules = {}
    for file in ROOT.rglob("*.py"):
        name = ".".join(("gentax", *file.relative_to(ROOT).with_suffix("").parts))
        modules[name.removesuffix(".__init__")] = file
    left = {name: imported_files(name, file, modules) for name, file in modules.items()}
    while leaves := [name for name, imports in left.items() if not imports & set(left)]:
        for name in leaves:
            del left[name]
    assert not left, f"these files import each other in a circle, or import from one that does: {sorted(left)}"


def test_no_file_is_too_long_to_read():
    long = {str(file.relative_to(ROOT)): len(file.read_text("utf-8").splitlines()) for file in ROOT.rglob("*.py")}
    assert not {name: lines for name, lines in long.items() if lines > 520}


def test_import_is_quick_and_loads_nothing_heavy():
    """In seconds of the processor, which a busy machine does not stretch."""
    code = (
        "import sys, time; before = set(sys.modules); start = time.process_time(); import gentax; "
        "print(time.process_time() - start, *set(sys.modules) - before)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *loaded = out.stdout.split()
    assert float(seconds) <= 0.1
    assert len(loaded) <= 60
    assert not set(loaded) & {"torch", "transformers", "scipy", "sklearn", "matplotlib", "urllib3"}


def test_every_public_name_is_there():
    for name in gentax.__all__:
        assert callable(getattr(gentax, name))
    with pytest.raises(AttributeError):
        gentax.no_such_name  # noqa: B018


@pytest.mark.slow
def test_names_that_scripts_import_exist():
    """Type checks and most tests leave the scripts out."""
    missing = []
    for script in [*(ROOT.parents[1] / "benchmarks").glob("*.py"), *(ROOT.parents[1] / "docs").glob("*.py")]:
        for node in ast.walk(parsed(script)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gentax":
                try:
                    module = importlib.import_module(node.module)
                except ModuleNotFoundError as error:
                    if str(error.name).startswith("gentax"):
                        raise
                    continue  # TRL, alfworld and others may be missing
                missing += [f"{script.name}: {node.module}.{a.name}" for a in node.names if not found(module, a.name)]
    assert missing == []


def found(module, name: str) -> bool:
    """Return whether a module has a name, or is the package of a module of this name."""
    return hasattr(module, name) or importlib.util.find_spec(f"{module.__name__}.{name}") is not None


def test_no_module_takes_the_place_of_a_public_name():
    """Importing `gentax.tax` would make the function `gentax.tax` a module."""
    assert not set(gentax.__all__) & {path.stem for path in ROOT.iterdir()}


def test_nothing_is_unpickled():
    for file in ROOT.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "import pickle" not in text
        assert "torch.load(" not in text

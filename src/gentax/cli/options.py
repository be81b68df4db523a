"""Options that several commands share, and how they are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gentax.cli.show import console, shown
from gentax.core.console import status
from gentax.core.errors import UsageError

if TYPE_CHECKING:
    from gentax.models.requests import ModelOptions
    from gentax.policies import Policy

MODEL = "a folder, a hub's `org/name[@revision]`, an adapter's folder, a `.gguf` file"  # how a model is named
POLICY = f"`base`, `random`, `expert`, {MODEL}, `http://…/v1#model`, or `module:policy`."  # and a policy

Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the result to this file as JSON.")
]
Domains = Annotated[
    list[str] | None,
    typer.Option(
        "--domain", "-d", metavar="NAME[:LEVEL]", help="A domain, with a level if not its default. May be repeated."
    ),
]
Tasks = Annotated[int, typer.Option(help="Test tasks of each domain.")]
Samples = Annotated[int, typer.Option(help="Episodes on each task.", min=1, max=10_000)]
Seed = Annotated[int, typer.Option(help="Seeds every random number drawn.")]
Parallel = Annotated[
    int | None,
    typer.Option(help="Episodes in flight at once; as many as memory holds without it, 128 at most.", min=1),
]
AllowUnreadable = Annotated[
    bool,
    typer.Option("--allow-unreadable", help="Play on when most of the first replies hold no action."),
]


def read_domains(names: list[str] | None) -> dict[str, str | None]:
    """Read `--domain` options; all installed domains when none is given. Raises UsageError for unknown ones."""
    from gentax.domains import domains, make, missing
    from gentax.domains.registry import read_domain

    if not names:
        return {name: None for name, record in domains().items() if not missing(record)}
    pairs = list(map(read_domain, names))
    levels = dict(pairs)
    if len(levels) < len(pairs):
        twice = next(name for n, (name, _) in enumerate(pairs) if name in dict(pairs[:n]))
        raise UsageError(f"domain {twice} is named twice; one command plays it at one level")
    for name, level in levels.items():
        make(name, level).close()  # an unknown level is refused before anything is played
    return levels


def load_policy(what: str, options: ModelOptions) -> Policy:
    """Load a policy by its name, and show that this is being done: PyTorch and weights take seconds or more."""
    from gentax.policies import load_policy
    from gentax.policies.load import SIMPLE

    if what not in SIMPLE:
        status(f"  loading {what}")

    return load_policy(what, options)


def load_pair(base: str, tuned: str, options: ModelOptions) -> tuple[Policy, Policy]:
    """Load two policies that are compared, likewise."""
    from gentax.policies import load_policy_pair
    from gentax.policies.load import SIMPLE

    if loaded := [name for name in (base, tuned) if name not in SIMPLE]:
        status(f"  loading {' and '.join(loaded)}")
    return load_policy_pair(base, tuned, options)


def write_result(path: Path | None, value: Any) -> None:
    """Write a result as JSON where `--json` was given."""
    from gentax.core.files import write_json

    if path is not None:
        write_json(path, value)
        console.print(f"wrote {shown(str(path))}", markup=False)


def check_out(path: Path | None, option: str = "--json") -> None:
    """Refuse an output path that cannot be written, before hours are spent on what would go there."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{path} is a folder; {option} takes a file")
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{option} {path}: nothing can be written there: {error.strerror}") from None
    if not os.access(path.absolute().parent, os.W_OK):
        raise UsageError(f"{option} {path}: nothing can be written there")

"""`gentax train`"""

from __future__ import annotations

import dataclasses
import os
import typing
from pathlib import Path
from typing import Annotated, Any

import typer

from gentax.cli import options as o
from gentax.cli.show import console
from gentax.core.console import status
from gentax.core.errors import UsageError


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A YAML file of settings, or the name of a shipped one; the defaults without.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the run goes.")] = Path("runs/train"),
    setting: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a setting; may be repeated.")
    ] = None,
    parallel: o.Parallel = None,
    settings: Annotated[
        bool, typer.Option("--settings", help="Print every setting with its default and leave.")
    ] = False,
) -> None:
    """Train a policy: on one domain, a mixture or a sequence, by imitation, RL or both. A stopped run is continued.

    The checkpoints are Hugging Face folders. RECIPE may also be the name of a recipe that ships with gentax.

    Example: `gentax train --out runs/sokoban -s source=sokoban -s steps=60 -s play.thinking=true`
    """
    from gentax.core.settings import read_settings
    from gentax.domains.registry import read_domain
    from gentax.training.config import TrainConfig
    from gentax.training.config.read import read_values

    if settings:
        return _explain(TrainConfig)
    values = dict(read_values(recipe)) if recipe else {}
    for item in setting or ():
        _put(values, item)
    if parallel is not None:
        values["parallel"] = parallel
    made = read_settings(TrainConfig, values, str(recipe or "recipe"))
    if os.environ.get("RANK", "0") == "0":
        status("  starting PyTorch")
    from gentax.training import train as run

    folder = run(made, out, progress=True)
    if os.environ.get("RANK", "0") != "0":
        return  # the first process has the word
    console.print(f"model: {folder}", markup=False)
    for source in dict.fromkeys(read_domain(name)[0] for name in made.trained or made.imitated):
        console.print(
            f"what it cost elsewhere: gentax tax --base {made.base} --tuned {folder} --source {source}", markup=False
        )


def _put(values: dict[str, Any], item: str) -> None:
    """Put `a.b=value` into nested mappings; the value is read as YAML."""
    import yaml

    key, equals, text = item.partition("=")
    if not equals:
        raise UsageError(f"--set takes KEY=VALUE, not {item!r}")
    *path, last = key.strip().split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise UsageError(f"--set {item}: {part!r} is not a group of settings")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"--set {item}: the value is not YAML") from None


def _explain(cls: type, prefix: str = "", default: Any = None) -> None:
    """Print the fields of a dataclass with their defaults and the line of documentation under each."""
    from gentax.core.settings import field_docs

    lines = field_docs(cls)
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        value = _default(field) if default is None else getattr(default, field.name)
        console.print(f"[bold]{prefix}{field.name}[/]", end=" ")
        needed = value is dataclasses.MISSING
        console.print("" if needed or dataclasses.is_dataclass(value) else f"= {value}", markup=False)
        console.print(f"    {lines.get(field.name, '')}", markup=False)
        kinds = [kind for kind in (hints[field.name], *typing.get_args(hints[field.name])) if _is_group(kind)]
        if kinds and field.name != "validate_play":  # which has the fields of `play`
            _explain(kinds[0], f"{prefix}{field.name}.", value if dataclasses.is_dataclass(value) else None)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)

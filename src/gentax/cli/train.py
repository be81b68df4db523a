"""`gentax train`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gentax.cli.show import Progress, console, training_line
from gentax.core.errors import UsageError


def train(
    recipe: Annotated[Path | None, typer.Argument(help="A YAML file of settings; the defaults without it.")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the run goes.")] = Path("runs/train"),
    setting: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a setting; may be repeated.")
    ] = None,
    settings: Annotated[
        bool, typer.Option("--settings", help="Print every setting with its default and leave.")
    ] = False,
) -> None:
    """Train a policy by GRPO on one domain; the checkpoints are Hugging Face folders. A stopped run is continued.

    Example: `gentax train --out runs/sokoban -s source=sokoban -s steps=60 -s play.thinking=true`
    """
    from gentax.core.settings import read_settings, read_yaml
    from gentax.training.recipe import Recipe

    if settings:
        return _explain(Recipe)
    values = read_yaml(recipe) or {} if recipe else {}
    for item in setting or ():
        _put(values, item)
    made = read_settings(Recipe, values, str(recipe or "recipe"))
    from gentax.training import train as run

    progress = Progress()
    folder = run(made, out, lambda row: progress.say(training_line(row, made.steps), int(row["step"]), made.steps))
    console.print(f"checkpoint: {folder}\nwhat it cost elsewhere: gentax tax --tuned {folder} --source {made.source}")


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


def _explain(cls: type, prefix: str = "") -> None:
    """Print the fields of a dataclass with their defaults and the line of documentation under each."""
    import ast
    import dataclasses
    import inspect
    import textwrap

    (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    lines = {}
    for node, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            lines[node.target.id] = " ".join(str(after.value.value).split())
    default = cls()
    for field in dataclasses.fields(cls):
        value = getattr(default, field.name)
        console.print(f"[bold]{prefix}{field.name}[/]", end=" ")
        console.print("" if dataclasses.is_dataclass(value) else f"= {value}", markup=False)
        console.print(f"    {lines.get(field.name, '')}", markup=False)
        if dataclasses.is_dataclass(value):
            _explain(type(value), f"{prefix}{field.name}.")

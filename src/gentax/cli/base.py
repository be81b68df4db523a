"""`gentax base build`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gentax.cli.show import console

app = typer.Typer(help="The base model that ships with gentax.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `build` a command of its own."""


@app.command()
def build(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the model goes.")] = Path("runs/base"),
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="A YAML file; the shipped model's without it.")
    ] = None,
) -> None:
    """Build the base model from nothing: play the domains, train a tokenizer and a small Llama on the text.

    Example: `gentax base build --out runs/base`
    """
    from gentax.core.settings import read_settings, read_yaml
    from gentax.training.base import BaseRecipe
    from gentax.training.base import build as run

    values = read_yaml(recipe) or {} if recipe else {}
    folder = run(
        read_settings(BaseRecipe, values, str(recipe or "recipe")),
        out,
        say=lambda text: console.print(text, markup=False),
    )
    console.print(f"model: {folder}\ntry it: gentax evaluate {folder}", markup=False)

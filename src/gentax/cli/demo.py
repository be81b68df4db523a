"""`gentax demo`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gentax.cli import options as o
from gentax.cli.study import run_and_show


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the stages go.")] = Path("runs"),
    json: o.Json = None,
) -> None:
    """Train the base model on Sokoban in three ways and say what each cost in five other domains: nine minutes on two
    CPU cores.

    Example: `gentax demo`
    """
    run_and_show("demo", out, json)

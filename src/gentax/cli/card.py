"""`gentax card`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gentax.cli.output import check_output, print_text, save


def card(
    result: Annotated[
        Path,
        typer.Argument(help="A file that `gentax tax` or `gentax evaluate` wrote with --json, or a folder of --out."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="A model card, such as README.md; of one that is there the section "
            "is added or replaced. Printed without it.",
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="The model's name, in a new card.")] = "model",
) -> None:
    """Write a model card section: the Hub's evaluation metadata (`model-index`) and a table with intervals.

    Example: `gentax tax --tuned runs/mine/final --source sokoban --json tax.json`, then
    `gentax card tax.json --out runs/mine/final/README.md`
    """
    from gentax.integrations.model_card import card_section, card_text, write_card

    check_output(out, "--out")
    section = card_section(result)
    if out is None:
        print(card_text(section, name))
        return
    save(out, lambda file: write_card(file, section, name))
    print_text(f"wrote {out}")

"""`gentax merge`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gentax.cli import options as o
from gentax.cli.show import console
from gentax.core.console import status
from gentax.core.errors import UsageError


def merge(
    policies: Annotated[list[str], typer.Argument(metavar="MODEL…", help=f"Models trained from the base: {o.MODEL}.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the merged model goes.")],
    base: Annotated[str, typer.Option(help="The policy they were trained from; `base` ships with gentax.")] = "base",
    method: Annotated[
        str,
        typer.Option(
            help="`ties` (of each one's change the largest fifth, by majority of signs), `mean` of the weights, or "
            "`interpolate` (one policy's weights drawn back towards the base's)."
        ),
    ] = "ties",
    weight: Annotated[
        float | None,
        typer.Option(help="For `interpolate`: the policy's share, 0 for the base's weights, 1 for its own; 0.5."),
    ] = None,
) -> None:
    """Make one policy of several that were trained from the same base, or draw one back towards it.

    Nothing is played. The result is a Hugging Face folder, with `merge.json` beside the weights.

    Examples: `gentax merge runs/sokoban/step-000100 runs/webshop/step-000100 --out runs/both`, or
    `gentax merge runs/sokoban/step-000100 --method interpolate --weight 0.5 --out runs/half`
    """
    if weight is not None and method != "interpolate":
        raise UsageError(f"--weight is for --method interpolate, not for {method}")
    status(f"  loading {', '.join(policies)} and merging on the CPU")
    from gentax.training.forgetting import merge_models

    folder = merge_models(base, policies, method, out, 0.5 if weight is None else weight)
    console.print(f"model: {folder}", markup=False)
    console.print(f"what it cost elsewhere: gentax tax --base {base} --tuned {folder} --source DOMAIN", markup=False)

"""`gentax verify`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gentax.cli.show import console


def verify(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Results of `gentax evaluate --suite … --json FILE`.")
    ],
) -> None:
    """Check results of a suite: its tasks, how they started, outcomes, score card. Exit code 1 on failure.

    Nothing is played. It shows that a file is whole and agrees with itself and with the frozen suite; whether the
    policy did what the file says it cannot know. Other versions than those installed here are noted and fail nothing.

    Example: `gentax verify base.json mine.json`
    """
    from gentax.evals.suites import verify as run
    from gentax.report.text import one_line

    failed = 0
    for file in files:
        console.print(one_line(str(file), 200), style="bold", markup=False)
        checks = run(file)
        for check in checks:
            console.print(f"  {check.name:12}", end="", markup=False)
            console.print(
                f"{'ok' if check.passed else 'FAILED':8}", style="green" if check.passed else "bold red", end=""
            )
            console.print(check.found, markup=False)
        failed += not all(check.passed for check in checks)
    if len(files) > 1:
        console.print(f"{len(files) - failed} of {len(files)} files passed every check")
    if failed:
        raise typer.Exit(1)

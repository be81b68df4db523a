"""`gentax check`"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from gentax.cli import options as o
from gentax.cli.show import console, printable
from gentax.core.console import is_interactive, status

if TYPE_CHECKING:
    from gentax.domains.check import Result

_STYLE = {"passed": "green", "failed": "bold red", "not applicable": "dim"}


def check(
    env: Annotated[str, typer.Argument(metavar="ENV", help="A domain, `NAME` or `NAME:LEVEL`, or `module:factory`.")],
    tasks: Annotated[int | None, typer.Option(help="Tasks that the expert must solve; 200 if not said.")] = None,
    starts: Annotated[int | None, typer.Option(help="Tasks of each split that are compared; 4000.")] = None,
    episodes: Annotated[int | None, typer.Option(help="Episodes over which memory is watched; 1000.")] = None,
    seconds: Annotated[float | None, typer.Option(help="For all checks; slow environments do less; 180.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only the check of this name. May be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A look: 20 tasks, 300 starts, 120 episodes, 6 s.")] = False,
    json: o.Json = None,
) -> None:
    """Check that an environment keeps what gentax expects of one. Exit code 1 when a check fails.

    Examples: `gentax check sokoban`, `gentax check my_package:make_env --quick`
    """
    from gentax.domains.check import QUICK, Effort
    from gentax.domains.check import check as run

    o.check_out(json)
    status(f"  starting {env}")
    ((name, level),) = o.read_domains([env]).items()
    asked = {"tasks": tasks, "starts": starts, "episodes": episodes, "seconds": seconds}
    effort = replace(QUICK if quick else Effort(), **{key: value for key, value in asked.items() if value is not None})
    console.print(f"{'check':16}{'result':16}{'time':>8}  found", style="bold")
    report = run(name, level, effort=effort, only=only or (), on_check=_begin, on_result=_row)
    failed = len(report.failed)
    console.print(f"{printable(report.name)} at level {printable(report.level)}: ", end="", markup=False)
    console.print("every check passed" if not failed else f"{failed} of {len(report.results)} checks failed")
    o.write_result(json, report.to_json())
    if failed:
        raise typer.Exit(1)


def _begin(check: str) -> None:
    """Show which check is being made; into a file goes the line of its result alone."""
    if is_interactive():
        status(f"{check:16}…")


def _row(result: Result) -> None:
    """Print a result as a line of the table, as soon as it is known."""
    console.print(f"{result.name:16}", end="", markup=False)
    console.print(f"{result.verdict.value:16}", style=_STYLE[result.verdict.value], end="")
    console.print(f"{result.seconds:6.1f} s  {printable(result.found)}", markup=False)

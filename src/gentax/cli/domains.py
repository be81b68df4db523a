"""`gentax domains` and `gentax check`"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from gentax.cli import options as o
from gentax.cli.output import console, print_table, print_text, write_result
from gentax.core.console import is_interactive, status, visible
from gentax.core.errors import ExitCode

if TYPE_CHECKING:
    from gentax.domains.check import Result

_STYLE = {"passed": "green", "failed": "bold red", "not applicable": "dim"}


def domains(json: o.Json = None) -> None:
    """List every domain, its levels, and what would enable those that cannot run here.

    Example: `gentax domains`
    """
    from gentax.domains import domains as registered
    from gentax.domains import missing_modules

    records = registered()
    print_table(
        "Domains",
        ["name", "state", "default level", "in the suite"],
        [
            [
                r.name,
                "not installed" if missing_modules(r) else "ready",
                r.default_level,
                "target only" if r.target_only else "source, target",
            ]
            for r in records.values()
        ],
    )
    for record in records.values():
        console.print(f"\n[bold]{record.name}[/]  {record.about}")
        print_text(f"  {record.origin}\n  Licence: {record.licence}")
        if missing_modules(record):
            print_text(f"  To enable it: {record.enable}")
        for name, level in record.levels.items():
            print_text(f"    {name:28} {level.about} (at most {level.horizon} steps)")
    write_result(
        json,
        {
            r.name: {
                "ready": not missing_modules(r),
                "levels": list(r.levels),
                "default": r.default_level,
                "licence": r.licence,
                "target_only": r.target_only,
                "enable": r.enable,
            }
            for r in records.values()
        },
    )


def check(
    env: Annotated[str, typer.Argument(metavar="ENV", help="A domain, `NAME` or `NAME:LEVEL`, or `module:factory`.")],
    tasks: Annotated[int | None, typer.Option(help="Tasks that the expert must solve (200).")] = None,
    starts: Annotated[
        int | None,
        typer.Option(help="Tasks of each split whose starts are compared (4000)."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="For all checks; slow environments get fewer tasks (180).")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only the check of this name. May be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A quick check: 20 tasks, 300 starts, 6 s.")] = False,
    json: o.Json = None,
) -> None:
    """Check that an environment keeps what gentax expects of one. Exit code 1 when a check fails.

    Examples: `gentax check sokoban`, `gentax check my_package:make_env --quick`
    """
    from gentax.domains.check import QUICK, CheckBudget
    from gentax.domains.check import check as run

    status(f"  starting {env}")
    ((name, level),) = o.read_domains([env]).items()
    limits: dict[str, Any] = {"tasks": tasks, "starts": starts, "seconds": seconds}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    effort = replace(QUICK if quick else CheckBudget(), **given)
    console.print(f"{'check':16}{'result':16}{'time':>8}  found", style="bold")
    report = run(name, level, effort=effort, only=only or (), on_check=_print_running, on_result=_print_row)
    failed = len(report.failed)
    outcome = f"{failed} of {len(report.results)} checks failed" if failed else "every check passed"
    print_text(f"{report.name} at level {report.level}: {outcome}")
    write_result(json, report.to_json())
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def _print_running(check: str) -> None:
    """Show which check is running; a file gets only the line of its result."""
    if is_interactive():
        status(f"{check:16}…")


def _print_row(result: Result) -> None:
    """Print a result as a line of the table, as soon as it is known."""
    verdict = Text(f"{result.verdict.value:16}", _STYLE[result.verdict.value])
    seconds = f"{result.seconds:6.1f} s  {visible(result.message)}"
    console.print(Text(f"{result.name:16}"), verdict, Text(seconds), sep="")

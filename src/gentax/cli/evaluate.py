"""`gentax evaluate`, and `verify` and `card`, which read what it wrote."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from gentax.cli import options as o
from gentax.cli.options import with_settings
from gentax.cli.output import console, print_text, print_text_table, save, write_result, write_rows
from gentax.core.errors import ExitCode, UsageError
from gentax.core.files import lock_folder
from gentax.models.options import ModelOptions

if TYPE_CHECKING:
    from gentax.evals.suite_result import SuiteResult

MODEL = tuple(field.name for field in dataclasses.fields(ModelOptions))
# Options that a suite does not fix.
FREE_OPTIONS = ("policy", "named", "domain", "suite", "json", "table", "parallel", "allow_unreadable", *MODEL)


@with_settings
def evaluate(
    ctx: typer.Context,
    policy: Annotated[str, typer.Argument(help=o.POLICY)] = "base",
    named: Annotated[str | None, typer.Option("--policy", metavar="POLICY", help="The same, as an option.")] = None,
    suite: Annotated[
        str | None, typer.Option(metavar="NAME", help="Play a frozen suite, such as `v2`, which fixes all but -d.")
    ] = None,
    domain: o.Domains = None,
    tasks: Annotated[int, typer.Option(help="Test tasks of each domain.")] = 128,
    split: Annotated[str, typer.Option(help="The split of the tasks: `train`, `validation` or `test`.")] = "test",
    samples: o.Samples = 1,
    *,
    config: o.RolloutArgs,
    model: o.ModelArgs,
    options: o.RunArgs,
    json: o.Json = None,
    table: o.Table = None,
) -> None:
    """Play a policy on the test tasks of domains and print how often it succeeds, with 95 % intervals.

    Examples: `gentax evaluate base -d sokoban -d sciworld --tasks 64`,
    `gentax evaluate --suite v2 --policy base --json base.json` (see `gentax verify`)
    """
    from gentax.evals.evaluate import evaluate as run

    if named is not None:
        if _is_given(ctx, "policy"):
            raise UsageError(f"the policy is given twice: {policy!r} and --policy {named!r}")
        policy = named
    if suite is not None:
        _refuse_fixed_options(ctx, suite)
        return _play_suite(policy, suite, domain, options, json, table, model)
    levels = o.read_domains(domain)
    result = run(
        o.load_policy(policy, model),
        levels,
        tasks=tasks,
        split=split,
        samples=samples,
        config=config,
        **options.arguments(),
    )
    print_text_table(result.table())
    print_text(result.caveats())
    write_result(json, result.to_json())
    write_rows(table, [result])


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _refuse_fixed_options(ctx: typer.Context, suite: str) -> None:
    fixed = [p.opts[0] for p in ctx.command.params if p.name not in FREE_OPTIONS and _is_given(ctx, str(p.name))]
    if fixed:
        raise UsageError(f"{', '.join(fixed)} cannot be given with --suite: {suite} fixes how it is played")


def _play_suite(
    policy: str,
    name: str,
    names: list[str] | None,
    options: o.RunOptions,
    json: Path | None,
    table: Path | None,
    model: ModelOptions,
) -> None:
    """Play a suite and print its score card."""
    from gentax.domains.registry import parse_domain
    from gentax.evals.suite_run import play_suite

    for given, level in map(parse_domain, names or ()):
        if level is not None:
            raise UsageError(f"-d {given}:{level}: suite {name} fixes the level; say -d {given}")
    play = options.arguments()
    del play["seed"]  # which the suite fixes
    with nullcontext() if json is None else lock_folder(f"{json}.partial", f"playing suite {name}"):
        result = play_suite(policy, name, names, out=json, load=o.load_policy, model=model, **play)
    _score_card(result)
    if json is not None:
        print_text(f"wrote {json}; `gentax verify {json}` checks it")
    write_rows(table, [result])


def _score_card(result: SuiteResult) -> None:
    from gentax.domains import domain, missing_modules

    print_text_table(result.table())
    if result.missing:
        print_text(f"incomplete, so there is no mean: without {', '.join(result.missing)}")
    print_text(f"to enable {name}: {domain(name).enable}" for name in result.missing if missing_modules(domain(name)))


def verify(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Results of `gentax evaluate --suite … --json FILE`.")
    ],
    json: o.Json = None,
) -> None:
    """Check results of a suite: its tasks, how they started, outcomes, score card. Exit code 1 on failure.

    Nothing is played. It shows that a file is complete and agrees with itself and with the frozen suite; whether the
    policy did what the file says it cannot know. Other versions than those installed here are noted and fail nothing.

    Example: `gentax verify base.json mine.json`
    """
    from gentax.core.console import one_line
    from gentax.evals.suite_result import verify as run

    failed, found = 0, {}
    for file in files:
        console.print(one_line(str(file), 200), style="bold", markup=False)
        checks = run(file)
        for check in checks:
            verdict, style = ("ok", "green") if check.passed else ("FAILED", "bold red")
            console.print(f"  {check.name:12}", Text(f"{verdict:8}", style), Text(check.found), sep="")
        failed += not all(check.passed for check in checks)
        found[str(file)] = [check._asdict() for check in checks]
    if len(files) > 1:
        console.print(f"{len(files) - failed} of {len(files)} files passed every check")
    write_result(json, {"passed": not failed, "files": found})
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def card(
    result: Annotated[
        Path,
        typer.Argument(help="A file that `gentax tax` or `gentax evaluate` wrote with --json, or a folder of --out."),
    ],
    out: Annotated[
        Path | None,
        o.output_file(
            "A model card, such as README.md; of one that is there the section is added or replaced. Printed without "
            "it."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="The model's name, in a new card.")] = "model",
    json: o.Json = None,
) -> None:
    """Write a model card section: the Hub's evaluation metadata (`model-index`) and a table with intervals.

    Example: `gentax tax --tuned runs/mine/final --source sokoban --json tax.json`, then
    `gentax card tax.json --out runs/mine/final/README.md`
    """
    from gentax.integrations.model_card import card_section, card_text, write_card

    section = card_section(result)
    if out is None:
        print(card_text(section, name))
    else:
        save(out, lambda file: write_card(file, section, name))
        print_text(f"wrote {out}")
    write_result(json, dataclasses.asdict(section))

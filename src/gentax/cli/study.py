"""`gentax study`"""

from __future__ import annotations

from json import loads
from pathlib import Path
from typing import Annotated

import typer

from gentax.cli import options as o
from gentax.cli.show import console, say
from gentax.cli.study_progress import StudyProgress

app = typer.Typer(
    help="Sources × arms × seeds, evaluated on the same test tasks before and after.", no_args_is_help=True
)


@app.command()
def run(
    study: Annotated[str, typer.Argument(help="A YAML file, or the name of a study that ships with gentax.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the stages go.")] = Path("runs"),
    parallel: o.Parallel = None,
    allow_unreadable: o.AllowUnreadable = False,
    json: o.Json = None,
) -> None:
    """Do what is missing of a study and print where its report is. The same command again does nothing.

    Example: `gentax study run demo --out runs`
    """
    from gentax.studies import read_study

    if (warned := read_study(study).cannot_claim()) is not None:
        say(warned)
    run_and_show(study, out, json, parallel, allow_unreadable)


def run_and_show(
    study: str, out: Path, json: Path | None, parallel: int | None = None, allow_unreadable: bool = False
) -> None:
    """Run a study with its progress shown, then print what came of it: the first screen of its report."""
    from gentax.report.terminal import first_screen
    from gentax.studies import read_study, run_study
    from gentax.studies.plan import plan
    from gentax.studies.results import results
    from gentax.studies.run import Store

    o.check_out(json)
    read = read_study(study)
    with StudyProgress(read.name, console) as progress:
        page = run_study(read, out / read.name, progress, parallel, not allow_unreadable)
    todo, store = plan(read), Store(out / read.name)
    console.print()
    found, _ = results(todo, store.episodes)
    console.print(first_screen(found, tuple(read.domains), console), soft_wrap=False)
    console.print(f"\nreport: {page}", markup=False)
    o.write_result(json, loads((store.path(todo.measure) / "results.json").read_text(encoding="utf-8")))


@app.command("fit")
def fit(
    study: Annotated[str, typer.Argument(help="The study: a YAML file, or one that ships with gentax.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the fit goes, as JSON.")],
    runs: Annotated[Path, typer.Option("--runs", help="The folder that `study run --out` filled.")] = Path("runs"),
) -> None:
    """Turn a finished study into what `gentax advise` and `gentax tax --forecast-only` forecast from.

    Example: `gentax study fit sources --out my-fit.json`, then `gentax advise --fit my-fit.json`
    """
    from gentax.core.files import write_json
    from gentax.studies import read_study
    from gentax.studies.fit import fit_study
    from gentax.studies.plan import plan
    from gentax.studies.run import Store

    o.check_out(out, "--out")
    asked = read_study(study)
    found = fit_study(plan(asked), Store(runs / asked.name), lambda text: console.print(f"  {text}", markup=False))
    write_json(out, found.to_json())
    console.print(f"wrote {out}", markup=False)

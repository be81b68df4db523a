"""`gentax study` and `gentax demo`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gentax.cli import options as o
from gentax.cli.output import check_output, console, print_text, write_result

app = typer.Typer(
    help="Sources × arms × seeds, evaluated on the same test tasks before and after.", no_args_is_help=True
)
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the stages go.")]


@app.command()
def run(
    study: Annotated[str, typer.Argument(help="A YAML file, or the name of a study that ships with gentax.")],
    out: Out = Path("runs"),
    parallel: o.Parallel = None,
    allow_unreadable: o.AllowUnreadable = False,
    json: o.Json = None,
) -> None:
    """Run the missing stages of a study and print where its report is. The same command again runs nothing.

    Example: `gentax study run demo --out runs`
    """
    from gentax.studies import read_study

    if (warning := read_study(study).cannot_claim()) is not None:
        print_text(warning)
    _run(study, out, json, parallel, allow_unreadable)


def demo(out: Out = Path("runs"), json: o.Json = None) -> None:
    """Train the base model on Sokoban in three ways and say what each cost in five other domains: nine minutes on two
    CPU cores.

    Example: `gentax demo`
    """
    _run("demo", out, json)


def _run(name: str, out: Path, json: Path | None, parallel: int | None = None, allow_unreadable: bool = False) -> None:
    """Run a study with its progress shown, then print the first screen of its report."""
    from gentax.report.terminal import first_screen
    from gentax.studies import StudyRun, read_study
    from gentax.studies.progress import StudyProgress

    check_output(json)
    study = read_study(name)
    with StudyProgress(study.name, console) as progress:
        run = StudyRun(study, out / study.name, progress, parallel, not allow_unreadable)
        page = run.run()
    console.print()
    console.print(first_screen(run.results.results, tuple(study.domains), console), soft_wrap=False)
    console.print(f"\nreport: {page}", markup=False)
    write_result(json, run.results_json())


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
    from gentax.studies.plan import make_plan
    from gentax.studies.run import Store

    check_output(out, "--out")
    plan = make_plan(read_study(study))
    fitted = fit_study(plan, Store(runs / plan.study.name), lambda text: console.print(f"  {text}", markup=False))
    write_json(out, fitted.to_json())
    console.print(f"wrote {out}", markup=False)

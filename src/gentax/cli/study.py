"""`gentax study` and `gentax demo`"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from gentax.cli import options as o
from gentax.cli.output import check_output, console, print_text, write_result
from gentax.core.errors import UsageError

app = typer.Typer(
    help="Sources × arms × seeds, evaluated on the same test tasks before and after.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(help="A YAML file, or the name of a study that ships with gentax.")]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the stages go.")]
Workers = Annotated[
    int | None,
    typer.Option(help="Stages done at once; by default one for each GPU or core, as far as memory allows.", min=1),
]
Engine = Annotated[str, typer.Option(help="`local`, `ray` (a cluster, see --engine-option) or `slurm`.")]
EngineOption = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-option",
        metavar="KEY=VALUE",
        help="`address=…` of a Ray cluster; for Slurm what submitit takes, such as `slurm_partition=gpu`.",
    ),
]
Costs = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Unit costs as YAML, for the expected time, memory and storage.")
]


@app.command()
def run(
    study: Name,
    out: Out = Path("runs"),
    workers: Workers = None,
    engine: Engine = "local",
    engine_option: EngineOption = None,
    costs: Costs = None,
    parallel: o.Parallel = None,
    allow_unreadable: o.AllowUnreadable = False,
    json: o.Json = None,
) -> None:
    """Run the missing stages of a study and print where its report is. The same command again runs nothing.

    It may be stopped or killed at any moment and given again, and several runs of it share the work.

    Example: `gentax study run demo --out runs`
    """
    from gentax.studies import read_study

    if (warning := read_study(study).cannot_claim()) is not None:
        print_text(warning)
    options = dict(_key_value(text) for text in engine_option or ())
    _run(study, out, json, parallel, allow_unreadable, workers, engine, options, costs)


def demo(out: Out = Path("runs"), workers: Workers = None, json: o.Json = None) -> None:
    """Train the base model on Sokoban in three ways and say what each cost in five other domains: nine minutes on two
    CPU cores.

    Example: `gentax demo`
    """
    _run("demo", out, json, workers=workers)


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--engine-option takes KEY=VALUE, not {text!r}")
    return key, value


def _run(
    name: str,
    out: Path,
    json: Path | None,
    parallel: int | None = None,
    allow_unreadable: bool = False,
    workers: int | None = None,
    engine: str = "local",
    options: Mapping[str, str] | None = None,
    costs: Path | None = None,
) -> None:
    """Run a study with its progress shown, then print the first screen of its report."""
    from gentax.report.claims import claim_notes, claims_table
    from gentax.report.terminal import first_screen
    from gentax.studies import StudyRun, read_study
    from gentax.studies.costs import CostModel, read_costs
    from gentax.studies.engines import engine_for
    from gentax.studies.progress import StudyProgress
    from gentax.studies.study import study_path

    check_output(json)
    study = read_study(name)
    with StudyProgress(study.name, console, CostModel(read_costs(costs))) as progress:
        run = StudyRun(study, out, progress, parallel, not allow_unreadable)
        run.file = (name, study_path(name).read_text(encoding="utf-8"))
        run.make_engine = engine_for(engine, run.plan, workers, options or {})
        page = run.run()
    console.print()
    console.print(first_screen(run.results.results, tuple(study.domains), console), soft_wrap=False)
    if claims := run.results.claims:
        console.print()
        console.print(claims_table(claims), soft_wrap=False)
        print_text(claim_notes(claims))
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
    from gentax.studies.store import Store

    check_output(out, "--out")
    plan = make_plan(read_study(study))
    fitted = fit_study(plan, Store(runs), lambda text: console.print(f"  {text}", markup=False))
    write_json(out, fitted.to_json())
    console.print(f"wrote {out}", markup=False)

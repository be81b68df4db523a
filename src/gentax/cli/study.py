"""`gentax study`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gentax.cli import options as o
from gentax.cli.show import console, printable, say
from gentax.core.progress import Progress
from gentax.training.progress import show_row

if TYPE_CHECKING:
    from gentax.study.plan import Stage

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
    run_and_show(study, out, json, parallel, allow_unreadable)


def run_and_show(
    study: str, out: Path, json: Path | None, parallel: int | None = None, allow_unreadable: bool = False
) -> None:
    """Run a study with its progress shown, then print its sentences."""
    from gentax.study import read_study, run_study

    o.check_out(json)
    read = read_study(study)
    page = run_study(read, out / read.name, _Shown(), parallel, not allow_unreadable)
    results = page.parent.parent / _measured(page)
    import json as files

    found = files.loads((results / "results.json").read_text())
    for row in found["results"]:
        console.print(printable(f"\n{row['source']}, {row['arm']}"), style="bold", markup=False)
        say(f"  {sentence}" for sentence in row["sentences"])
    console.print(f"\nreport: {page}", markup=False)
    o.write_result(json, found)


def _measured(page: Path) -> str:
    import json

    needs: list[str] = json.loads((page.parent / "stage.json").read_text())["needs"]
    return next(name for name in needs if name.startswith("measure-"))


class _Shown:
    """Prints what a study does."""

    def __init__(self) -> None:
        self.training, self.episodes = Progress(), Progress(every=10**9)

    def stage(self, stage: Stage, number: int, of: int, done: bool) -> None:
        console.print(f"[{number}/{of}] {stage.kind} {stage.label}" + ("  (done before)" if done else ""), markup=False)

    def train_row(self, row: dict[str, float], steps: int) -> None:
        show_row(self.training, row, steps)

    def episode(self, number: int, of: int) -> None:
        self.episodes.say(f"  {number}/{of} episodes", number, of)


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
    from gentax.study import read_study
    from gentax.study.fit import fit_study
    from gentax.study.plan import plan
    from gentax.study.run import Store

    o.check_out(out, "--out")
    asked = read_study(study)
    found = fit_study(plan(asked), Store(runs / asked.name), lambda text: console.print(f"  {text}", markup=False))
    write_json(out, found.to_json())
    console.print(f"wrote {out}", markup=False)

"""`gentax study`, `demo` and `view`, and `reference`, which recomputes the studies of the two papers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gentax.cli import options as o
from gentax.cli.output import (
    console,
    estimate_text,
    print_table,
    print_text,
    write_result,
    write_rows,
)
from gentax.core.errors import ExitCode, UsageError
from gentax.core.imports import LOCAL, require_modules

if TYPE_CHECKING:
    from gentax.metrics.reference.recompute import Table as PrintedTable
    from gentax.studies.costs import StudyOverview
    from gentax.studies.plan import Plan
    from gentax.studies.store import Store

MAX_ROWS = 40  # of a plan, where not every stage is asked for

app = typer.Typer(
    help="Sources × arms × seeds, evaluated on the same test tasks before and after.", no_args_is_help=True
)
StudyName = Annotated[str, typer.Argument(help="A YAML file, or the name of a study that ships with gentax.")]
StoreFolder = Annotated[str, typer.Option(metavar="FOLDER", help="Where the stages go: a folder or a URL (s3://…).")]
Workers = Annotated[
    int | None,
    typer.Option(help="Stages done at once; by default one for each GPU or core, as far as memory allows.", min=1),
]
Engine = Annotated[str, typer.Option(help="`local`, `ray` (a cluster, see --engine-option) or `slurm`.")]
EngineOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="`address=…` of a Ray cluster; for Slurm what submitit takes, such as `slurm_partition=gpu`.",
    ),
]
CostsFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Unit costs as YAML, for the expected time, memory and storage.")
]


@app.command()
def run(
    study: StudyName,
    out: StoreFolder = "runs",
    workers: Workers = None,
    engine: Engine = "local",
    engine_option: EngineOption = None,
    costs: CostsFile = None,
    parallel: o.Parallel = None,
    allow_unreadable: o.AllowUnreadable = False,
    json: o.Json = None,
) -> None:
    """Run the missing stages of a study and print where its report is. The same command again runs nothing.

    It may be stopped or killed at any moment and given again, and several runs of it share the work.

    Example: `gentax study run demo --out runs`
    """
    options = dict(_key_value(text) for text in engine_option or ())
    _run(study, out, json, parallel, allow_unreadable, workers, engine, options, costs, warn=True)


def demo(out: StoreFolder = "runs", workers: Workers = 1, json: o.Json = None) -> None:
    """Train the base model on Sokoban in three ways and say what each cost in five other domains: minutes on two CPU
    cores.

    Example: `gentax demo`
    """
    require_modules("gentax demo", "minigrid", "textworld_express", *LOCAL)
    _run("demo", out, json, workers=workers)


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--engine-option takes KEY=VALUE, not {text!r}")
    return key, value


def _run(
    name: str,
    out: str,
    json: Path | None,
    parallel: int | None = None,
    allow_unreadable: bool = False,
    workers: int | None = None,
    engine: str = "local",
    options: Mapping[str, str] | None = None,
    costs: Path | None = None,
    warn: bool = False,
) -> None:
    """Run a study with its progress shown, then print the first screen of its report.

    With `warn`, it is first said what so few seeds cannot claim.
    """
    from gentax.report.text import claim_notes, claims_table, first_screen
    from gentax.studies import StudyRun, read_study
    from gentax.studies.costs import CostModel, read_costs
    from gentax.studies.engines import engine_for
    from gentax.studies.progress import StudyProgress
    from gentax.studies.remote import open_store
    from gentax.studies.study import study_path

    require_modules("a study", *LOCAL)
    study = read_study(name)
    if warn and (warning := study.cannot_claim()) is not None:
        print_text(warning)
    store, file = open_store(out), (name, study_path(name).read_text(encoding="utf-8"))
    expected = CostModel(read_costs(costs)).learn(store.history())
    with StudyProgress(study.name, console, expected) as progress:
        run = StudyRun(study, store, progress, parallel, not allow_unreadable, file=file)
        run.make_engine = engine_for(engine, run.plan, expected, workers, options or {})
        page = run.run()
    console.print()
    console.print(first_screen(run.results.results, tuple(study.domains), console), soft_wrap=False)
    if claims := run.results.claims:
        console.print()
        console.print(claims_table(claims), soft_wrap=False)
        print_text(claim_notes(claims))
    print_text(["", f"report: {page}"])
    write_result(json, run.results_json())


def _open(study: str, out: str, weights: bool = True) -> tuple[Plan, Store]:
    """Return the stages of a study, and the store that holds them."""
    from gentax.studies import read_study
    from gentax.studies.plan import make_plan
    from gentax.studies.remote import open_store

    return make_plan(read_study(study), weights=weights), open_store(out)


@app.command()
def plan(
    study: StudyName,
    out: StoreFolder = "runs",
    workers: Workers = None,
    costs: CostsFile = None,
    stages: Annotated[bool, typer.Option("--stages", help="List every stage.")] = False,
    json: o.Json = None,
) -> None:
    """Show the stages of a study, which of them are done, and what the others will take.

    Expected times come from what stages of the same kind took under the same folder, before that from `--costs`.

    Example: `gentax study plan retention --out runs`
    """
    from gentax.studies.costs import CostModel, overview, read_costs
    from gentax.studies.engines import default_slots

    made, store = _open(study, out, weights=False)
    model = CostModel(read_costs(costs)).learn(store.history())
    found = overview(made, store, model, workers or default_slots(made, model))
    _print_overview(made.study.name, found, stages)
    if made.by_name:
        print_text(
            f"{', '.join(made.by_name)} is not on this machine: its name stands for its weights, and stages that were "
            "done with it are not recognised. `gentax study run` needs the weights, and downloads those of a hub."
        )
    write_result(json, found.to_json())


def _print_overview(name: str, found: StudyOverview, every_stage: bool) -> None:
    from gentax.studies.costs import clock

    rows = []
    for title, group in found.groups.items():
        done = [stage for stage in group if found.states[stage] == "done"]
        left = [stage for stage in group if found.states[stage] != "done"]
        active = {found.states[stage] for stage in left} - {"missing"}
        state = "done" if not left else ", ".join(sorted(active)) if active else "missing" if not done else "in part"
        time = clock(sum(found.seconds[stage] for stage in left)) if left else ""
        rows.append([title, f"{len(done)}/{len(group)}", state, time])
        if every_stage:
            for stage in group:
                rows.append([f"  {stage.folder}", "", found.states[stage], clock(found.seconds[stage])])
    if len(rows) > MAX_ROWS and not every_stage:
        hidden = len(rows) - MAX_ROWS
        rows = [*rows[: MAX_ROWS - 1], [f"… {hidden} more, see --stages", "", "", ""], rows[-1]]
    print_table(f"study {name}", ["", "done", "state", "left"], rows)
    kinds = {kind: len(found.left(kind)) for kind in ("train", "evaluate", "report")}
    what = [
        f"{n} {word}" for n, word in zip(kinds.values(), ("training runs", "evaluations", "report"), strict=True) if n
    ]
    if not what:
        print_text("Everything is done.")
    else:
        workers = f" with {found.slots} at once" if found.slots > 1 else ""
        gpus = f", {found.gpu_seconds / 3600:,.0f} GPU hours" if found.gpu_seconds else ""
        print_text(
            f"Left: {', '.join(what)}; about {clock(found.wall_seconds)}{workers}{gpus}, {_size(found.memory)} of "
            f"memory, {_size(found.storage)} of storage ({_size(found.free_storage)} are free)."
        )
    if found.storage > found.free_storage:
        print_text("That is more storage than there is.")
    if found.other_versions:
        print_text(
            f"{found.other_versions} stages of these names were made with other settings or another version of the "
            "code, and are not used; `gentax study clean` lists them."
        )


def _size(number: float) -> str:
    """Write a number of bytes.

    >>> _size(6e7), _size(4.25e10), _size(8.2e12)
    ('0.06 GB', '42.5 GB', '8.2 TB')
    """
    if number >= 1e12:
        return f"{number / 1e12:,.1f} TB"
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e9:.2f} GB"


@app.command()
def compare(
    first: StudyName, second: StudyName, out: StoreFolder = "runs", json: o.Json = None, table: o.Table = None
) -> None:
    """Compare two finished studies: the settings that differ, and the tax of the arms that they have in common.

    Example: `gentax study compare demo studies/demo_seeds.yaml`
    """
    from gentax.studies.results import compare_studies, settings_differences

    (one, store), (two, _) = _open(first, out), _open(second, out)
    differences = settings_differences(one, two)
    rows = [[key, _short(before), _short(after)] for key, (before, after) in differences.items()]
    names = [one.study.name, two.study.name] if one.study.name != two.study.name else [first, second]
    if rows:
        print_table("settings that differ", ["", *names], rows)
    cells = compare_studies(one, two, store)
    lines = []
    for cell in cells:
        change = "not paired" if cell.change is None else estimate_text(cell.change.targets)
        taxes = [estimate_text(tax) for tax in (cell.first_tax, cell.second_tax)]
        lines.append([f"{cell.arm} on {cell.source}", *taxes, change])
    print_table("tax, fraction", ["", *names, "change on targets, points"], lines)
    settings = [{"key": key, "first": before, "second": after} for key, (before, after) in differences.items()]
    write_result(json, {"settings": settings, "cells": [cell.to_json() for cell in cells]})
    write_rows(table, cells)


def _short(value: object) -> str:
    text = "–" if value is None else str(value)
    return text if len(text) <= 40 else text[:39] + "…"


@app.command("check")
def check_store(study: StudyName, out: StoreFolder = "runs", json: o.Json = None) -> None:
    """Hash every stored file of a study. Damaged stages are set aside; `gentax study run` makes them again.

    Exits with 1 where any was damaged.

    Example: `gentax study check demo`
    """
    plan, store = _open(study, out)
    stages = plan.stages()
    intact = sum(store.has(stage, contents=True) for stage in stages)
    print_text(damaged := store.take_damaged())
    print_text(f"{intact} of {len(stages)} stages are there and intact, {len(damaged)} were damaged.")
    write_result(json, {"stages": len(stages), "intact": intact, "damaged": damaged})
    if damaged:
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def clean(
    studies: Annotated[list[str], typer.Argument(help="The studies whose stages are kept.")],
    out: StoreFolder = "runs",
    delete: Annotated[bool, typer.Option("--delete", help="Delete the folders; without it they are listed.")] = False,
    json: o.Json = None,
) -> None:
    """List, or delete, the stages that the studies named do not use: of other settings or code, stopped, damaged.

    Example: `gentax study clean demo retention --delete`
    """
    import shutil

    from gentax.studies.store import unused_folders

    opened = [_open(study, out) for study in studies]
    store = opened[0][1]
    if store.shared:
        raise UsageError(f"{store} is no folder of this machine, and only folders are cleaned")
    folders = unused_folders([plan for plan, _ in opened], store)
    for folder in folders:
        if delete:
            try:
                shutil.rmtree(folder)
            except OSError as fault:
                raise UsageError(f"cannot delete {folder}: {fault.strerror or fault}") from None
        print_text(f"{'deleted' if delete else 'unused'} {folder}")
    left = store.leftovers().items()
    locks = [file for name, of_stage in left if not store.folder_locked(Path(name)) for file in of_stage]
    if delete:
        locks = store.sweep()
    for file in locks:
        print_text(f"{'deleted' if delete else 'unused'} {file}")
    unused = [*folders, *locks]
    if not unused:
        print_text("Nothing is unused.")
    write_result(json, {"deleted": delete, "unused": [str(path) for path in unused]})


def view(
    study: StudyName,
    out: StoreFolder = "runs",
    host: Annotated[
        str, typer.Option(help="The address to serve at; any but this machine's own takes the token that is printed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to serve at; 0 for a free one.", min=0, max=65535)] = 8765,
    workers: Workers = None,
) -> None:
    """Serve a page that follows a study while it runs: the matrix filling, training curves, any episode.

    Example: `gentax view demo --out runs`
    """
    from gentax.studies.view import StudyView, ViewServer

    server = ViewServer(StudyView(*_open(study, out), workers or 1), host, port)
    print_text(f"{server.url} follows the study; Ctrl-C ends it")
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


@app.command("fit")
def fit(
    study: Annotated[str, typer.Argument(help="The study: a YAML file, or one that ships with gentax.")],
    out: Annotated[Path, o.output_file("Where the fit goes, as JSON.")],
    runs: Annotated[str, typer.Option(help="The folder that `study run --out` filled.")] = "runs",
) -> None:
    """Turn a finished study into what `gentax advise` and `gentax tax --forecast-only` forecast from.

    Example: `gentax study fit sources --out my-fit.json`, then `gentax advise --fit my-fit.json`
    """
    from gentax.studies.results import fit_study

    write_result(out, fit_study(*_open(study, runs), lambda text: print_text(f"  {text}")).to_json())


def reference(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="The paper's arXiv number; both papers without it.")
    ] = None,
    json: o.Json = None,
) -> None:
    """Recompute every figure that the two papers on the tax derive from their printed cells, and say which agree.

    Ranges are what the rounding of the cells allows. Examples: `gentax reference`, `gentax reference 2601.18217`
    """
    from gentax.metrics.reference import STUDIES, published
    from gentax.metrics.reference.recompute import recompute, tables

    recomputed = [recompute(published(key)) for key in ([study] if study else STUDIES)]
    for one in recomputed:
        print_text(f"{one.study.citation}\n{one.study.note}\n")
        for table in tables(one):
            _print_printed(table)
    print_text(one.summary for one in recomputed)
    write_result(json, [one.to_json() for one in recomputed])


def _print_printed(table: PrintedTable) -> None:
    """Print a table at its full width: a figure that is cut short would be another figure."""
    console.print(table.title, style="bold", markup=False)
    widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    for row in (table.columns, *table.rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.print("  ".join(cells).rstrip(), markup=False, style="dim" if row is table.columns else None)
    print_text([*(f"  {note}" for note in table.notes), ""])

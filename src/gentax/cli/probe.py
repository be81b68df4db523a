"""`gentax probe`"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gentax.cli import options as o
from gentax.cli.options import SettingsGroup, with_settings
from gentax.cli.output import check_outputs, console, one_line, print_table, write_result, write_rows
from gentax.models.options import ModelOptions
from gentax.rollouts import RolloutConfig

if TYPE_CHECKING:
    from gentax.metrics.axes import Axes, Probe
    from gentax.metrics.statistics import Estimate

    Columns = Sequence[tuple[str, Callable[[Axes], str]]]  # a heading, and what stands below it

Named = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[DOMAIN]...",
        help="`NAME`, `NAME:LEVEL` or `module:factory`; all that are installed without one.",
        show_default=False,
    ),
]
Policy = Annotated[str, typer.Option(help=o.POLICY)]
Trajectories = Annotated[int, typer.Option(help="Episodes of each domain: tasks times samples.")]
Horizon = Annotated[int, typer.Option(help="Steps after which an episode is cut off and a failure counted.")]
Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Also draw the result: `.svg`, `.png` or `.pdf`.")
]


@with_settings(config=SettingsGroup(RolloutConfig, exclude=("horizon", "reward", "wrap")), model=ModelOptions)
def probe(
    domain: Named = None,
    policy: Policy = "base",
    trajectories: Trajectories = 128,
    samples: Annotated[int, typer.Option(help="Episodes on each task; more than one give pass@k.")] = 1,
    horizon: Horizon = 50,
    distract: Annotated[
        bool, typer.Option("--distract", help="Also with distractors; `--wrap 'distract(volume=80)'` says how many.")
    ] = False,
    wrap: Annotated[
        list[str] | None,
        typer.Option("--wrap", metavar="WRAPPER", help="Also in this wrapper; several nest, the first innermost."),
    ] = None,
    *,
    config: RolloutConfig,
    model: ModelOptions,
    seed: o.Seed = 0,
    parallel: o.Parallel = None,
    allow_unreadable: o.AllowUnreadable = False,
    json: o.Json = None,
    table: o.Table = None,
    plot: Plot = None,
) -> None:
    """Measure how rich the states of domains are and how far their goals, on tasks of the train split.

    Examples: `gentax probe sokoban babyai --plot axes.svg`, `gentax probe my_package:make_env --samples 4`
    """
    from gentax.evals.probe import probe as run
    from gentax.report.style import check_plot_path

    check_outputs(json, table)
    check_plot_path(plot)
    levels = read_domain_levels(domain)
    wrappers = [*(["distract"] if distract else []), *(wrap or [])]
    rows = run(
        levels,
        o.load_policy(policy, model),
        trajectories=trajectories,
        samples=samples,
        horizon=horizon,
        wrap=wrappers,
        config=config,
        seed=seed,
        parallel=parallel,
        stop_if_unreadable=not allow_unreadable,
        progress=True,
    )
    _print_probes(rows)
    write_result(json, {"probes": [row.to_json() for row in rows]})
    write_rows(table, rows)
    if plot is not None:
        _draw(rows, plot)
        console.print(f"wrote {plot}", markup=False)


def read_domain_levels(names: Sequence[str] | None) -> list[tuple[str, str | None]]:
    """Read domains with their levels; all that are installed when none is given."""
    from gentax.domains.registry import parse_domain

    return [parse_domain(name) for name in names] if names else list(o.read_domains(None).items())


def _print_probes(rows: Sequence[Probe]) -> None:
    first = rows[0]
    console.print(f"policy: {one_line(first.policy)}; tokens are those of: {one_line(first.tokenizer)}\n", markup=False)
    richness: Columns = [
        ("prompt, characters", lambda axes: _estimate_text(axes.prompt_characters, 0)),
        ("template %", lambda axes: _estimate_text(axes.prompt_template, 0)),
        ("observation, characters", lambda axes: _estimate_text(axes.observation_characters, 0)),
        ("template %", lambda axes: _estimate_text(axes.observation_template, 0)),
        ("tokens", lambda axes: _estimate_text(axes.observation_tokens, 0)),
        ("bytes zipped", lambda axes: _estimate_text(axes.observation_compressed, 0)),
    ]
    _grid("State richness, mean over states", richness, rows)
    planning: Columns = [
        ("steps", lambda axes: _estimate_text(axes.planning, 1)),
        ("success %", lambda axes: _estimate_text(axes.success, 0)),
        ("steps if solved", lambda axes: _estimate_text(axes.length_given_success, 1)),
        ("the expert's", lambda axes: _estimate_text(axes.expert_length, 1)),
        ("actions to choose", lambda axes: _estimate_text(axes.branching, 0)),
    ]
    _grid(f"Planning complexity, mean steps with failures counted at {first.axes.horizon}", planning, rows)
    ks = sorted({k for row in rows for k in row.axes.pass_at})
    if len(ks) > 1:
        by_k: Columns = [(f"k = {k}", partial(_pass, k)) for k in ks]
        _grid("Pass@k, percent of tasks that one of k samples solves", by_k, rows)
    for row in rows:
        if row.axes.errors:
            left_out = f"{one_line(row.name)}: {row.axes.errors} episodes ended in an error and were left out"
            console.print(left_out, markup=False)
    console.print("In brackets: 95 % intervals over tasks. Compare domains probed with the same policy and horizon.")


def _grid(title: str, columns: Columns, rows: Sequence[Probe]) -> None:
    heads = ["domain", *(head for head, _ in columns)]
    print_table(title, heads, [[row.name, *(cell(row.axes) for _, cell in columns)] for row in rows])


def _pass(k: int, axes: Axes) -> str:
    return _estimate_text(axes.pass_at.get(k), 0)


def _estimate_text(value: Estimate | None, digits: int) -> str:
    """Write an estimate with its interval; a dash for what is not known."""
    return "–" if value is None else value.text(digits)


def _draw(rows: Sequence[Probe], path: Path) -> None:
    from gentax.report.figures import DomainPoint, axes_plot
    from gentax.report.style import save

    points = [DomainPoint(row.name, row.axes.observation_characters, row.axes.planning, row.plain) for row in rows]
    y_label = f"planning complexity: steps, failures at {rows[0].axes.horizon}"
    save(axes_plot(points, "state richness: characters of the observation", y_label), path)

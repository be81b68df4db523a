"""`gentax probe`, `diversity` and `advise`: what domains are like, how different they are, which to train on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gentax.cli import options as o
from gentax.cli.options import SettingsGroup, with_settings
from gentax.cli.output import estimate_text, print_table, print_text, print_text_table, write_result, write_rows
from gentax.core.console import one_line, status
from gentax.core.errors import UsageError, unknown
from gentax.core.imports import LOCAL, require_modules
from gentax.rollouts import EvalRolloutConfig

if TYPE_CHECKING:
    from gentax.metrics.axes import Probe
    from gentax.metrics.forecast import Fit, TrainingOption

DomainNames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[DOMAIN]...",
        help="`NAME`, `NAME:LEVEL` or `module:factory`; all that are installed without one.",
        show_default=False,
    ),
]
Horizon = Annotated[int, typer.Option(help="Steps after which an episode is cut off and a failure counted.")]


def _check_plot(path: Path | None) -> Path | None:
    if path is not None:
        from gentax.report.style import check_plot_path  # takes matplotlib

        check_plot_path(path)
    return path


PlotFile = Annotated[Path | None, o.output_file("Also draw the result: `.svg`, `.png` or `.pdf`.", _check_plot)]
# A heading, the measure of `Axes` below it, and its digits after the point.
RICHNESS = (
    ("prompt, characters", "prompt_characters", 0),
    ("template %", "prompt_template", 0),
    ("observation, characters", "observation_characters", 0),
    ("template %", "observation_template", 0),
    ("tokens", "observation_tokens", 0),
    ("bytes zipped", "observation_compressed", 0),
)
PLANNING = (
    ("steps", "planning", 1),
    ("success %", "success", 0),
    ("steps if solved", "length_given_success", 1),
    ("the expert's", "expert_length", 1),
    ("actions to choose", "branching", 0),
)


@with_settings
def probe(
    domain: DomainNames = None,
    policy: o.PolicyName = "base",
    trajectories: o.Trajectories = 128,
    samples: Annotated[int, typer.Option(help="Episodes on each task; more than one give pass@k.")] = 1,
    horizon: Horizon = 50,
    distract: Annotated[
        bool, typer.Option("--distract", help="Also with distractors; `--wrap 'distract(volume=80)'` says how many.")
    ] = False,
    wrap: Annotated[
        list[str] | None,
        typer.Option(metavar="WRAPPER", help="Also in this wrapper; several nest, the first innermost."),
    ] = None,
    *,
    config: Annotated[EvalRolloutConfig, SettingsGroup(exclude=("horizon", "reward", "wrap"))],
    model: o.ModelArgs,
    options: o.RunArgs,
    json: o.Json = None,
    table: o.Table = None,
    plot: PlotFile = None,
) -> None:
    """Measure how rich the states of domains are and how far their goals, on tasks of the train split.

    Examples: `gentax probe sokoban babyai --plot axes.svg`, `gentax probe my_package:make_env --samples 4`
    """
    from gentax.evals.probe import probe as run

    rows = run(
        _read_levels(domain),
        o.load_policy(policy, model),
        trajectories=trajectories,
        samples=samples,
        horizon=horizon,
        wrap=[*(["distract"] if distract else []), *(wrap or [])],
        config=config,
        **options.arguments(),
    )
    _print_probes(rows)
    write_result(json, {"probes": [row.to_json() for row in rows]})
    write_rows(table, rows)
    if plot is not None:
        _draw(rows, plot)
        print_text(f"wrote {plot}")


def _read_levels(names: Sequence[str] | None) -> list[tuple[str, str | None]]:
    """Read domains with their levels; all that are installed when none is given."""
    from gentax.domains.registry import parse_domain

    return [parse_domain(name) for name in names] if names else list(o.read_domains(None).items())


def _print_probes(rows: Sequence[Probe]) -> None:
    first = rows[0]
    print_text(f"policy: {one_line(first.policy)}; tokens are those of: {one_line(first.tokenizer)}\n")
    tables = {
        "State richness, mean over states": RICHNESS,
        f"Planning complexity, mean steps with failures counted at {first.axes.horizon}": PLANNING,
    }
    for title, columns in tables.items():
        cells = [[estimate_text(getattr(row.axes, name), n, "–") for _, name, n in columns] for row in rows]
        _print_by_domain(title, [head for head, _, _ in columns], cells, rows)
    ks = sorted({k for row in rows for k in row.axes.pass_at})
    if len(ks) > 1:
        cells = [[estimate_text(row.axes.pass_at.get(k), 0, "–") for k in ks] for row in rows]
        _print_by_domain("Pass@k, percent of tasks that one of k samples solves", [f"k = {k}" for k in ks], cells, rows)
    for row in rows:
        if row.axes.errors:
            print_text(f"{one_line(row.name)}: {row.axes.errors} episodes ended in an error and were left out")
    print_text("In brackets: 95 % intervals over tasks. Compare domains probed with the same policy and horizon.")


def _print_by_domain(title: str, heads: list[str], cells: list[list[str]], rows: Sequence[Probe]) -> None:
    print_table(title, ["domain", *heads], [[row.name, *its] for row, its in zip(rows, cells, strict=True)])


def _draw(rows: Sequence[Probe], path: Path) -> None:
    from gentax.report.figures import DomainPoint, axes_plot
    from gentax.report.style import save

    points = [DomainPoint(row.name, row.axes.observation_characters, row.axes.planning, row.plain) for row in rows]
    y_label = f"planning complexity: steps, failures at {rows[0].axes.horizon}"
    save(axes_plot(points, "state richness: characters of the observation", y_label), path)


@with_settings
def diversity(
    domain: DomainNames = None,
    policy: o.PolicyName = "base",
    trajectories: o.Trajectories = 128,
    horizon: Horizon = 50,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN=SHARE", help="A domain's share of the mixture; all weigh alike without it. May be repeated."
        ),
    ] = None,
    tuned: Annotated[
        str | None,
        typer.Option(
            help=f"{o.MODEL}: also how far it has moved from `--policy` in each domain. Plays at temperature 1."
        ),
    ] = None,
    *,
    model: o.ModelArgs,
    options: o.RunArgs,
    json: o.Json = None,
    table: o.Table = None,
    plot: PlotFile = None,
) -> None:
    """Measure how different domains are, in their words and on the axes, and how diverse a mixture is.

    Example: `gentax diversity sokoban crafting babyai --weight sokoban=2 --weight babyai=1 --plot diversity.svg`
    """
    from gentax.evals.probe import probe
    from gentax.metrics.diversity import MEASURES, half_width
    from gentax.metrics.diversity import diversity as run

    require_modules("gentax diversity", "sklearn", *LOCAL)
    levels = _read_levels(domain)
    names = [name if level is None else f"{name}:{level}" for name, level in levels]
    if len(set(names)) < 2:
        raise UsageError(f"diversity is between 2 or more domains, not of {', '.join(names)} alone")
    weights = _weights(weight, names)
    base = o.load_policy(policy, model)
    tuned_policy = None if tuned is None else o.load_policy(tuned, model)
    if tuned_policy is not None:
        from gentax.evals.kl_forecast import forward_kl, require_same_tokens

        require_same_tokens(base, tuned_policy)  # before anything is played
    probes = probe(
        levels,
        base,
        trajectories=trajectories,
        horizon=horizon,
        config=None if tuned_policy is None else EvalRolloutConfig(temperature=1.0),  # where the KL is exact
        **options.arguments(),
    )
    status("  comparing the domains")
    kl = {}
    if tuned_policy is not None:
        kl = {one.name: forward_kl(base, tuned_policy, one.episodes) for one in probes}
    measured = run(probes, kl)
    mixture = measured.mixture(weights)
    for text_table in measured.tables():
        print_text_table(text_table)
    if tuned_policy is not None:
        policies = f"{one_line(base.name)} || {one_line(tuned_policy.name)}"
        title = f"policy: KL({policies}) on the states of the first, nats per action"
        print_table(title, ["", "KL"], [[name, half_width(value)] for name, value in measured.policy.items()])
    rao = ", ".join(f"{value:.2f} ({measure})" for measure, value in mixture["rao"].items())
    of = sum(share > 0 for share in mixture["weights"].values())
    print_text(f"The mixture ({_shares(weights)}):")
    print_text(f"  two samples differ on average by {rao} (Rao's quadratic entropy)")
    print_text(f"  its words are those of {mixture['vendi']:.2f} wholly different domains, of {of} (Vendi score)")
    runtime = getattr(base, "runtime", None)  # that of --tuned is loaded alike
    write_result(json, measured.to_json() | {"mixture": mixture, "runtime": runtime})
    write_rows(table, [measured])
    if plot is not None:
        from gentax.report.figures import matrices_plot
        from gentax.report.style import save

        save(matrices_plot(measured.names, {f"{m}: {MEASURES[m]}": measured.matrix(m) for m in measured.pairs}), plot)
        print_text(f"wrote {plot}")


def _weights(options: Sequence[str] | None, names: Sequence[str]) -> dict[str, float] | None:
    """Read `DOMAIN=SHARE`, before anything is played. Raises UsageError for what is no mixture of `names`."""
    weights: dict[str, float] = {}
    for text in options or ():
        name, equals, share = text.rpartition("=")
        if not equals:
            raise UsageError(f"--weight {text[:80]}: write a domain and its share, as in {names[0]}=2")
        if name not in names:
            raise unknown("domain of the mixture", name, names)
        try:
            weights[name] = float(share)
        except ValueError:
            raise UsageError(f"--weight {text[:80]}: the share must be a number, not {share[:40]!r}") from None
    if weights and not (all(0 <= share < math.inf for share in weights.values()) and any(weights.values())):
        raise UsageError("--weight: shares must be at least 0, and one of them more")
    return weights or None


def _shares(weights: dict[str, float] | None) -> str:
    if weights is None:
        return "all domains alike"
    return ", ".join(f"{one_line(name)} {share / sum(weights.values()):.0%}" for name, share in weights.items())


SHOWN = 12  # lines of the ranking


@with_settings
def advise(
    candidate: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DOMAIN]...",
            help="What you could train on; every installed domain that may be, without one.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", metavar="NAME[:LEVEL]", help="What you deploy in; all others without it."),
    ] = None,
    budget: Annotated[int, typer.Option(help="Training steps to spend; mixtures share them.", min=1)] = 60,
    fit: Annotated[
        str, typer.Option(help="What forecasts rest on: one that ships, or a file of `study fit`.")
    ] = "sources",
    policy: o.PolicyName = "base",
    trajectories: o.Trajectories = 128,
    *,
    model: o.ModelArgs,
    options: o.RunArgs,
    json: o.Json = None,
    table: o.Table = None,
) -> None:
    """Rank the domains you could train on, and mixtures of them, by their forecast tax.

    Example: `gentax advise sokoban crafting webshop --target babyai --target twx-cooking --budget 60`
    """
    from gentax.domains import domain as record_of
    from gentax.evals.probe import probe
    from gentax.metrics.forecast import advise as run
    from gentax.metrics.forecast import read_fit

    forecast_fit = read_fit(fit)
    installed = o.read_domains(None)
    possible_sources = {name: None for name in installed if not record_of(name).target_only}
    candidates = o.read_domains(candidate) if candidate else possible_sources
    targets = o.read_domains(target) if target else installed
    levels = {**targets, **candidates}
    if not any(set(targets) - {name} for name in candidates):
        raise UsageError("advice takes at least one candidate and one other domain as a target")
    loaded = o.load_policy(policy, model)
    probes = probe(levels, loaded, trajectories=trajectories, **options.arguments())
    names = {p.domain: p.name for p in probes}
    advice = run(probes, [names[c] for c in candidates], [names[t] for t in targets], forecast_fit, budget)
    print_text([_verdict(advice, forecast_fit), ""])
    _print_ranking(advice, forecast_fit, budget)
    print_text(_caveats(advice, forecast_fit, policy))
    result = {"fit": forecast_fit.to_json(), "budget": budget, "advice": [a.to_json() for a in advice]}
    write_result(json, {**result, "runtime": getattr(loaded, "runtime", None)})
    write_rows(table, advice)


def _verdict(advice: Sequence[TrainingOption], fit: Fit) -> str:
    """Return which candidate to train on, or why the fit cannot tell."""
    first = advice[0]
    most = f"{_name(max(advice, key=lambda a: a.headroom))} has the most to gain on the source"
    if first.forecast.tax is None:
        return f"No forecast: {first.forecast.why}; {most}."
    tax = first.forecast.tax.text(1, 100, " %").replace("(", "(95 % interval ")
    best = [a for a in advice if a.rank == 1]
    if len(best) == len(advice) > 1:
        return f"Fit {fit.name!r} cannot tell these candidates apart; {most}. Forecast tax of each: {tax}."
    if len(advice) == 1:
        return f"Forecast tax of {_name(first)} by fit {fit.name!r}: {tax}."
    if len(best) == 1:
        return f"Train on {_name(first)}: it has the lowest forecast tax, {tax}."
    others = _listed([_name(a) for a in best[1:]])
    return f"Train on {_name(first)}: forecast tax {tax}; {others} cannot be distinguished from it."


def _print_ranking(advice: Sequence[TrainingOption], fit: Fit, budget: int) -> None:
    """Print the candidates; columns that would say the same in every row are left out."""
    from gentax.metrics.verdict import number

    columns: dict[str, Callable[[TrainingOption], str]] = {"train on": _name}
    if len({a.rank for a in advice}) > 1:
        columns["rank"] = lambda a: "–" if a.rank is None else str(a.rank)
    columns["steps each"] = lambda a: str(a.steps)
    if len({a.forecast.tax for a in advice}) > 1:
        columns["forecast tax % (95 % interval)"] = lambda a: a.forecast.tax.text(1, 100) if a.forecast.tax else "–"
    if any(a.measured for a in advice):
        columns[f"tax % measured in {fit.name!r}"] = lambda a: number(100 * a.measured.tax) if a.measured else ""
    columns["gain possible"] = lambda a: f"{a.headroom:.0f} points"
    title = f"What {budget} training steps could be spent on"
    print_table(title, list(columns), [[cell(a) for cell in columns.values()] for a in advice[:SHOWN]])
    if len(advice) > SHOWN:
        print_text(f"… and {len(advice) - SHOWN} more (--json has them all)")


def _caveats(advice: Sequence[TrainingOption], fit: Fit, policy: str) -> list[str]:
    """Return the evidence for the forecast and its assumptions, each once; nothing without a forecast."""
    if advice[0].forecast.tax is None:
        return []
    limits = []
    if any(a.steps != fit.steps for a in advice):
        limits.append(f"the fit's runs had {fit.steps} steps on one domain")
    if any(len(a.sources) > 1 for a in advice):
        limits.append("a mixture is taken to lie at the mean of its parts")
    if policy != fit.base:
        limits.append(f"the fit's runs started from {fit.base!r}, not {policy!r}")
    if outside := sorted({name for a in advice for name in a.forecast.outside}):
        limits.append(f"some candidates lie outside the fit's range of {_listed(outside)}")
    return [f"Evidence: {advice[0].forecast.why}.", *([f"Limits: {'; '.join(limits)}."] if limits else [])]


def _name(advice: TrainingOption) -> str:
    return " + ".join(advice.sources)


def _listed(names: Sequence[str]) -> str:
    """Write names as a list in prose, the first three of many."""
    shown = [*names] if len(names) <= 4 else [*names[:3], f"{len(names) - 3} others"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"

"""`gentax advise`"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gentax.cli import options as o
from gentax.cli.options import with_settings
from gentax.cli.output import print_table, print_text, write_result, write_rows
from gentax.core.errors import UsageError

if TYPE_CHECKING:
    from gentax.metrics.forecast import Fit, TrainingOption
    from gentax.metrics.statistics import Estimate

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
    model: o.Model,
    play: o.Play,
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
    probes = probe(levels, loaded, trajectories=trajectories, **play.arguments())
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
    tax = "{} % (95 % interval {} to {})".format(*_percent(first.forecast.tax))
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
    columns: dict[str, Callable[[TrainingOption], str]] = {"train on": _name}
    if len({a.rank for a in advice}) > 1:
        columns["rank"] = lambda a: "–" if a.rank is None else str(a.rank)
    columns["steps each"] = lambda a: str(a.steps)
    if len({a.forecast.tax for a in advice}) > 1:
        columns["forecast tax % (95 % interval)"] = lambda a: (
            "–" if a.forecast.tax is None else "{} ({} to {})".format(*_percent(a.forecast.tax))
        )
    if any(a.measured for a in advice):
        columns[f"tax % measured in {fit.name!r}"] = lambda a: "" if a.measured is None else _number(a.measured.tax)
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


def _number(fraction: float) -> str:
    from gentax.metrics.verdict import number

    return number(100 * fraction)


def _percent(tax: Estimate) -> tuple[str, str, str]:
    return _number(tax.value), _number(tax.low), _number(tax.high)

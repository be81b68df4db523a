"""`gentax advise`"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gentax.cli import options as o
from gentax.cli.probe import Policy, Trajectories
from gentax.cli.settings_options import takes
from gentax.cli.show import console, say, table
from gentax.core.errors import UsageError
from gentax.models.requests import ModelOptions

if TYPE_CHECKING:
    from gentax.measure.forecast import Advice, Fit
    from gentax.measure.statistics import Estimate

SHOWN = 12  # lines of the ranking


@takes(model=ModelOptions)
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
    policy: Policy = "base",
    trajectories: Trajectories = 128,
    *,
    model: ModelOptions,
    seed: o.Seed = 0,
    parallel: o.Parallel = None,
    allow_unreadable: o.AllowUnreadable = False,
    json: o.Json = None,
) -> None:
    """Rank the domains you could train on, and mixtures of them, by the tax to expect elsewhere.

    Example: `gentax advise sokoban crafting webshop --target babyai --target twx-cooking --budget 60`
    """
    from gentax.domains import domain as record_of
    from gentax.measure.forecast import advise as run
    from gentax.measure.forecast import read_fit
    from gentax.measure.probe import probe
    from gentax.measure.verdict import number
    from gentax.policies import policy_of

    o.check_out(json)
    known = read_fit(fit)
    everything = o.read_domains(None)
    may_be = {name: None for name in everything if not record_of(name).target_only}
    candidates = o.read_domains(candidate) if candidate else may_be
    targets = o.read_domains(target) if target else everything
    levels = {**targets, **candidates}
    if not any(set(targets) - {name} for name in candidates):
        raise UsageError("advice takes at least one candidate and one other domain as a target")
    who = policy_of(policy, model)
    probes = probe(
        levels,
        who,
        trajectories=trajectories,
        seed=seed,
        parallel=parallel,
        stop_if_unreadable=not allow_unreadable,
        progress=True,
    )
    names = {p.domain: p.name for p in probes}
    advice = run(probes, [names[c] for c in candidates], [names[t] for t in targets], known, budget)
    table(
        f"Forecast tax for a budget of {budget} training steps, 95 % intervals",
        ["train on", "rank", "steps each", "forecast tax %", "measured by the fit", "to gain at home"],
        [
            [
                " + ".join(a.sources),
                "–" if a.rank is None else str(a.rank),
                str(a.steps),
                "unknown" if a.forecast.tax is None else _percent(a.forecast.tax),
                "" if a.measured is None else number(100 * a.measured.tax),
                f"{a.headroom:.0f} points",
            ]
            for a in advice[:SHOWN]
        ],
    )
    if len(advice) > SHOWN:
        console.print(f"… and {len(advice) - SHOWN} more (--json has them all)")
    say(_about(advice, known, budget, policy))
    said = {"fit": known.to_json(), "budget": budget, "advice": [a.to_json() for a in advice]}
    o.write_result(json, {**said, "runtime": getattr(who, "runtime", None)})


def _percent(tax: Estimate) -> str:
    from gentax.measure.verdict import number

    value, low, high = (number(100 * x) for x in (tax.value, tax.low, tax.high))
    return f"{value}  ({low} to {high})"


def _about(advice: Sequence[Advice], fit: Fit, budget: int, policy: str) -> list[str]:
    """Say what the ranking rests on, and what it does not."""
    said = [f"Fit {fit.name!r} ({fit.about}). {advice[0].forecast.why}"]
    ranks = {a.rank for a in advice}
    if len(ranks) == 1 and len(advice) > 1:
        said.append("No candidate is told apart from another: choose by what there is to gain at home.")
    if any(len(a.sources) > 1 for a in advice):
        said.append("Mixtures are taken to lie where their parts lie on average; none was trained for this fit.")
    if budget < fit.steps:
        said.append(f"The runs of the fit had {fit.steps} steps, not {budget}: what fewer cost was not measured.")
    elif any(a.steps > fit.steps for a in advice):
        said.append(f"The runs of the fit had {fit.steps} steps a domain: what more of them cost was not measured.")
    if policy != fit.base:
        said.append(f"The runs of the fit started from {fit.base!r}, not from {policy!r}.")
    far = sorted({name for a in advice for name in a.forecast.outside})
    if far:
        said.append(f"Some candidates lie outside what the fit has seen in {', '.join(far)}: extrapolated.")
    return said

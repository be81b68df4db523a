"""`gentax diversity`"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gentax.cli import options as o
from gentax.cli import probe as probing
from gentax.cli.options import with_settings
from gentax.cli.output import (
    check_outputs,
    console,
    one_line,
    print_table,
    print_text_table,
    write_result,
    write_rows,
)
from gentax.core.console import status
from gentax.core.errors import UsageError, unknown
from gentax.core.extras import LOCAL, require_modules
from gentax.models.options import ModelOptions

if TYPE_CHECKING:
    from gentax.metrics.axes import Probe
    from gentax.metrics.statistics import Estimate
    from gentax.policies import Policy


@with_settings(model=ModelOptions)
def diversity(
    domain: probing.Named = None,
    policy: probing.Policy = "base",
    trajectories: probing.Trajectories = 128,
    horizon: probing.Horizon = 50,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            "--weight", metavar="DOMAIN=SHARE", help="A share of the mixture; without any, all weigh alike. Repeat it."
        ),
    ] = None,
    tuned: Annotated[
        str | None,
        typer.Option(
            help=f"{o.MODEL}: also how far it has moved from `--policy` in each domain. Plays at temperature 1."
        ),
    ] = None,
    *,
    model: ModelOptions,
    seed: o.Seed = 0,
    parallel: o.Parallel = None,
    allow_unreadable: o.AllowUnreadable = False,
    json: o.Json = None,
    table: o.Table = None,
    plot: probing.Plot = None,
) -> None:
    """Measure how different domains are, in their words and on the axes, and how diverse a mixture is.

    Example: `gentax diversity sokoban crafting babyai --weight sokoban=2 --weight babyai=1 --plot diversity.svg`
    """
    from gentax.evals.probe import probe
    from gentax.metrics.diversity import MEASURES, half_width
    from gentax.metrics.diversity import diversity as run
    from gentax.report.style import check_plot_path
    from gentax.rollouts import RolloutConfig

    check_outputs(json, table)
    check_plot_path(plot)
    require_modules("gentax diversity", "sklearn", *LOCAL)
    levels = probing.read_domain_levels(domain)
    names = [name if level is None else f"{name}:{level}" for name, level in levels]
    if len(set(names)) < 2:
        raise UsageError(f"diversity is between 2 or more domains, not of {', '.join(names)} alone")
    weights = _weights(weight, names)
    base = o.load_policy(policy, model)
    tuned_policy = _tuned(base, tuned, model)
    probes = probe(
        levels,
        base,
        trajectories=trajectories,
        horizon=horizon,
        config=RolloutConfig() if tuned_policy is None else RolloutConfig(temperature=1.0),  # where the KL is exact
        seed=seed,
        parallel=parallel,
        stop_if_unreadable=not allow_unreadable,
        progress=True,
    )
    status("  comparing the domains")
    measured = run(probes, {} if tuned_policy is None else _kl(base, tuned_policy, probes))
    mixture = measured.mixture(weights)
    for text_table in measured.tables():
        print_text_table(text_table)
    if tuned_policy is not None:
        policies = f"{one_line(base.name)} || {one_line(tuned_policy.name)}"
        title = f"policy: KL({policies}) on the states of the first, nats per action"
        print_table(title, ["", "KL"], [[name, half_width(value)] for name, value in measured.policy.items()])
    rao = ", ".join(f"{value:.2f} ({measure})" for measure, value in mixture["rao"].items())
    of = sum(share > 0 for share in mixture["weights"].values())
    console.print(f"The mixture ({_shares(weights)}):", markup=False)
    console.print(f"  two samples differ on average by {rao} (Rao's quadratic entropy)")
    console.print(f"  its words are those of {mixture['vendi']:.2f} wholly different domains, of {of} (Vendi score)")
    runtime = getattr(base, "runtime", None)  # that of --tuned is loaded alike
    write_result(json, measured.to_json() | {"mixture": mixture, "runtime": runtime})
    write_rows(table, [measured])
    if plot is not None:
        from gentax.report.figures import matrices_plot
        from gentax.report.style import save

        save(matrices_plot(measured.names, {f"{m}: {MEASURES[m]}": measured.matrix(m) for m in measured.pairs}), plot)
        console.print(f"wrote {plot}", markup=False)


def _tuned(base: Policy, tuned: str | None, model: ModelOptions) -> Policy | None:
    """Load the tuned policy. Raises UsageError where no KL can be computed, before anything is played."""
    if tuned is None:
        return None
    from gentax.evals.kl_forecast import require_same_tokens
    from gentax.policies.local import LocalPolicy

    tuned_policy = o.load_policy(tuned, model)
    for one in (base, tuned_policy):
        if not isinstance(one, LocalPolicy):
            raise UsageError(f"--tuned compares the weights of two models, and {one.name} has none on this machine")
    require_same_tokens(base, tuned_policy)
    return tuned_policy


def _kl(base: Policy, tuned: Policy, probes: Sequence[Probe]) -> dict[str, Estimate]:
    from gentax.evals.kl_forecast import forward_kl

    return {probe.name: forward_kl(base, tuned, probe.episodes) for probe in probes}


def _weights(options: Sequence[str] | None, names: Sequence[str]) -> dict[str, float] | None:
    """Read `DOMAIN=SHARE`, before anything is played. Raises UsageError for what is no mixture of `names`."""
    if not options:
        return None
    weights: dict[str, float] = {}
    for text in options:
        name, equals, share = text.rpartition("=")
        if not equals:
            raise UsageError(f"--weight {text[:80]}: write a domain and its share, as in {names[0]}=2")
        if name not in names:
            raise unknown("domain of the mixture", name, names)
        try:
            weights[name] = float(share)
        except ValueError:
            raise UsageError(f"--weight {text[:80]}: the share must be a number, not {share[:40]!r}") from None
    if not all(0 <= share < math.inf for share in weights.values()) or not sum(weights.values()):
        raise UsageError("--weight: shares must be at least 0, and one of them more")
    return weights


def _shares(weights: dict[str, float] | None) -> str:
    if weights is None:
        return "all domains alike"
    return ", ".join(f"{one_line(name)} {share / sum(weights.values()):.0%}" for name, share in weights.items())

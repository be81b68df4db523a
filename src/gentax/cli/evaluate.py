"""`gentax evaluate`"""

from __future__ import annotations

from typing import Annotated

import typer

from gentax.cli import options as o
from gentax.cli.show import episodes_counted, estimate, table


def evaluate(
    policy: Annotated[str, typer.Argument(help="`base`, `random`, `expert`, or a model folder.")] = "base",
    domain: o.Domains = None,
    tasks: o.Tasks = 128,
    split: Annotated[str, typer.Option(help="Which split of the tasks.")] = "test",
    samples: o.Samples = 1,
    context: o.Context = "full",
    thinking: o.Thinking = False,
    admissible: o.Admissible = False,
    temperature: o.Temperature = 0.4,
    wrap: o.Wrap = None,
    seed: o.Seed = 0,
    json: o.Json = None,
) -> None:
    """Play a policy on the test tasks of domains and print how often it succeeds, with 95 % intervals.

    Example: `gentax evaluate base -d sokoban -d sciworld --tasks 64`
    """
    from gentax.measure import evaluate as run

    o.check_out(json)
    levels = o.read_domains(domain)
    result = run(
        policy,
        levels,
        tasks=tasks,
        split=split,
        samples=samples,
        play=o.read_play(context, thinking, admissible, temperature, wrap),
        seed=seed,
        on_episode=episodes_counted(tasks * samples * len(levels), policy),
    )
    summary = result.to_json()["domains"]
    success = result.success()
    table(
        f"{result.policy} on {split} tasks",
        ["domain", "level", "success %", "length", "invalid", "errors"],
        [
            [n, r["level"], estimate(success[n]), f"{r['length']:.1f}", f"{r['invalid']:.0%}", r["errors"]]
            for n, r in summary.items()
        ],
    )
    o.write_result(json, result.to_json())

"""`gentax tax`"""

from __future__ import annotations

from typing import Annotated

import typer

from gentax.cli import options as o
from gentax.cli.show import console, episodes_counted, estimate, table


def tax(
    tuned: Annotated[str, typer.Option(help="The policy after training: a model folder.")],
    source: Annotated[str, typer.Option(help="The domain it was trained on, `NAME` or `NAME:LEVEL`.")],
    base: Annotated[str, typer.Option(help="The policy before training.")] = "base",
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "-t", metavar="NAME[:LEVEL]", help="Another domain; all that are installed without it."
        ),
    ] = None,
    tasks: o.Tasks = 128,
    samples: o.Samples = 1,
    context: o.Context = "full",
    thinking: o.Thinking = False,
    admissible: o.Admissible = False,
    temperature: o.Temperature = 0.4,
    wrap: o.Wrap = None,
    seed: o.Seed = 0,
    json: o.Json = None,
) -> None:
    """Say what training cost elsewhere: both policies play the same test tasks with the same random numbers.

    Example: `gentax tax --base base --tuned runs/sokoban/step-000100 --source sokoban --target sciworld`
    """
    from gentax.measure import evaluate
    from gentax.measure import tax as run
    from gentax.measure.evaluate import policy_of
    from gentax.measure.verdict import sentences

    o.check_out(json)
    home = o.read_domains([source])
    levels = {**o.read_domains(target), **home}
    play = o.read_play(context, thinking, admissible, temperature, wrap)
    policies = [policy_of(base), policy_of(tuned)]  # both are found before either plays
    played = [
        evaluate(
            policy,
            levels,
            tasks=tasks,
            samples=samples,
            play=play,
            seed=seed,
            on_episode=episodes_counted(tasks * samples * len(levels), policy.name),
        )
        for policy in policies
    ]
    report = run(*played, source=next(iter(home)), targets=levels)
    table(
        "Success %, with 95 % intervals",
        ["domain", "before", "after", "drop in points"],
        [
            [
                d,
                estimate(report.init[d]),
                estimate(report.after[d]),
                estimate(report.drop[d]) if d in report.drop else "source",
            ]
            for d in report.init
        ],
    )
    for sentence in sentences(report):
        console.print(sentence, markup=False)
    o.write_result(json, {**report.to_json(), "sentences": sentences(report)})

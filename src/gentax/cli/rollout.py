"""`gentax rollout`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gentax.cli import options as o
from gentax.cli.settings_options import Group, takes
from gentax.cli.show import console, say
from gentax.models.requests import ModelOptions
from gentax.rollouts import Play


@takes(play=Group(Play, leave_out=("horizon", "reward")), model=ModelOptions)
def rollout(
    domain: Annotated[str, typer.Argument(help="A domain, `NAME` or `NAME:LEVEL`.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the episodes go: gzipped JSON lines.")],
    policy: Annotated[str, typer.Option(help=o.POLICY)] = "base",
    tasks: Annotated[int, typer.Option(help="Tasks to play.", min=1)] = 16,
    split: Annotated[str, typer.Option(help="Which split of the tasks.")] = "test",
    samples: o.Samples = 1,
    *,
    play: Play,
    model: ModelOptions,
    seed: o.Seed = 0,
    parallel: o.Parallel = None,
    allow_unreadable: o.AllowUnreadable = False,
) -> None:
    """Play episodes and keep them: every observation, reply, action and reward.

    Example: `gentax rollout sokoban --policy expert --tasks 100 --thinking --out episodes.jsonl.gz`
    """
    from gentax.core.files import whole_file
    from gentax.core.record import write_episodes
    from gentax.measure.evaluate import evaluate

    o.check_out(out, "--out")
    result = evaluate(
        o.load_policy(policy, model),
        o.read_domains([domain]),
        tasks=tasks,
        split=split,
        samples=samples,
        play=play,
        seed=seed,
        parallel=parallel,
        stop_if_unreadable=not allow_unreadable,
        progress=True,
    )
    say(result.truncation().sentences(result.policy))
    (episodes,) = result.episodes.values()
    with whole_file(out) as aside:
        write_episodes(aside, episodes)
    console.print(f"wrote {len(episodes)} episodes to {out}")

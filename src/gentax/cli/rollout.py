"""`gentax rollout`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gentax.cli import options as o
from gentax.cli.settings_options import Group, takes
from gentax.cli.show import say
from gentax.models.requests import ModelOptions
from gentax.rollouts import RolloutConfig

if TYPE_CHECKING:
    from gentax.core import Episode


@takes(play=Group(RolloutConfig, leave_out=("horizon", "reward")), model=ModelOptions)
def rollout(
    domain: Annotated[str, typer.Argument(help="A domain, `NAME` or `NAME:LEVEL`.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the episodes go: gzipped JSON lines.")],
    policy: Annotated[str, typer.Option(help=o.POLICY)] = "base",
    tasks: Annotated[int, typer.Option(help="Tasks to play.", min=1)] = 16,
    split: Annotated[str, typer.Option(help="Which split of the tasks.")] = "test",
    samples: o.Samples = 1,
    *,
    play: RolloutConfig,
    model: ModelOptions,
    seed: o.Seed = 0,
    parallel: o.Parallel = None,
    allow_unreadable: o.AllowUnreadable = False,
) -> None:
    """Play episodes and keep them: every observation, reply, action and reward.

    The defaults are those of `gentax evaluate`. Episodes to imitate come from the train split.

    Example: `gentax rollout sokoban --policy expert --split train --tasks 100 --thinking --out episodes.jsonl.gz`
    """
    from gentax.core.episode import write_episodes
    from gentax.core.files import whole_file
    from gentax.evals.evaluate import tasks_of
    from gentax.policies.scripted import SCRIPTED
    from gentax.rollouts import rollout as run

    o.check_out(out, "--out")
    (chosen,) = tasks_of(o.read_domains([domain]), tasks, split).values()
    who = o.load_policy(policy, model)
    episodes = run(
        who,
        chosen,
        play=play,
        samples=samples,
        seed=seed,
        parallel=parallel,
        stop_if_unreadable=not allow_unreadable and not isinstance(who, SCRIPTED),
        progress=True,
    )
    with whole_file(out) as aside:
        write_episodes(aside, episodes)
    _say_what_came(episodes, who.name, out)


def _say_what_came(episodes: Sequence[Episode], policy: str, out: Path) -> None:
    from gentax.core import Outcome
    from gentax.metrics.episode_scores import Truncation

    broken = sum(episode.outcome is Outcome.ERROR for episode in episodes)
    solved = sum(episode.success for episode in episodes)
    errors = f", {broken} left out where the environment broke" if broken else ""
    say(f"wrote {len(episodes)} episodes to {out}: success in {solved} of {len(episodes) - broken}{errors}")
    say(Truncation.of(episodes).sentences(policy))

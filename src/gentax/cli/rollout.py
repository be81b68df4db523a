"""`gentax rollout`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gentax.cli import options as o
from gentax.cli.options import SettingsGroup, with_settings
from gentax.cli.output import check_output, print_text, save
from gentax.core.errors import unknown
from gentax.models.options import ModelOptions
from gentax.rollouts import RolloutConfig

if TYPE_CHECKING:
    from gentax.core import Episode


@with_settings(config=SettingsGroup(RolloutConfig, exclude=("horizon", "reward")), model=ModelOptions)
def rollout(
    domain: Annotated[str, typer.Argument(help="A domain, `NAME` or `NAME:LEVEL`.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the episodes go: gzipped JSON lines.")],
    policy: Annotated[str, typer.Option(help=o.POLICY)] = "base",
    tasks: Annotated[int, typer.Option(help="Tasks to play.", min=1)] = 16,
    split: Annotated[str, typer.Option(help="Which split of the tasks.")] = "test",
    samples: o.Samples = 1,
    log: Annotated[
        str | None,
        typer.Option("--log", metavar="FORMAT", help="`inspect`: a log that `inspect view` shows, `.json` or `.eval`."),
    ] = None,
    *,
    config: RolloutConfig,
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
    from gentax.evals.evaluate import tasks_of
    from gentax.integrations.inspect_log import check_inspect_log, write_inspect_log
    from gentax.policies.scripted import SCRIPTED
    from gentax.rollouts import rollout as run

    if log not in (None, "inspect"):
        raise unknown("log format", log, ["inspect"])
    if log is not None:
        check_inspect_log(out)
    check_output(out, "--out")
    (tasks_to_play,) = tasks_of(o.read_domains([domain]), tasks, split).values()
    loaded = o.load_policy(policy, model)
    episodes = run(
        loaded,
        tasks_to_play,
        config=config,
        samples=samples,
        seed=seed,
        parallel=parallel,
        stop_if_unreadable=not allow_unreadable and not isinstance(loaded, SCRIPTED),
        progress=True,
    )
    save(
        out,
        lambda file: write_episodes(file, episodes) if log is None else write_inspect_log(file, episodes, loaded.name),
    )
    _print_outcomes(episodes, loaded.name, out)


def _print_outcomes(episodes: Sequence[Episode], policy: str, out: Path) -> None:
    from gentax.core import Outcome
    from gentax.metrics.episode_scores import Truncation

    errors = sum(episode.outcome is Outcome.ERROR for episode in episodes)
    solved = sum(episode.success for episode in episodes)
    left_out = f", {errors} left out where the environment broke" if errors else ""
    print_text(f"wrote {len(episodes)} episodes to {out}: success in {solved} of {len(episodes) - errors}{left_out}")
    print_text(Truncation.of(episodes).sentences(policy))

"""Playing a suite, all of it or some domains (`gentax evaluate --suite`), and going on with one that was stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gentax.core import Episode, UsageError
from gentax.core.console import EpisodeProgress, end_line, shows_progress, status
from gentax.evals.evaluate import evaluate
from gentax.evals.suite import check_starts, load_suite, playable_domains, versions, write_lines
from gentax.evals.suite_result import DomainResult, PlayedEpisode, SuiteResult, check_result, read_result
from gentax.models.options import ModelOptions
from gentax.models.source import fingerprint, may_name_model
from gentax.policies import Policy, load_policy
from gentax.policies.chat_client import Usage
from gentax.policies.load import SCRIPTED_BY_NAME
from gentax.rollouts.engine import UnreadableReplies


def play_suite(
    policy: str | Path | Policy,
    suite: str = "v2",
    domains: Iterable[str] | None = None,
    *,
    out: str | Path | None = None,
    model: ModelOptions = ModelOptions(),
    load: Callable[[Any, ModelOptions], Policy] = load_policy,
    parallel: int | None = None,
    stop_if_unreadable: bool = True,
    on_episode: Callable[[Episode], None] | None = None,
    progress: bool | None = None,
) -> SuiteResult:
    """Play `policy` on a frozen suite, after checking that every task starts here as it was frozen.

    Args:
        policy: "random", "expert", the name of a model, or any `Policy` (see `load_policy`).
        suite: the suite's name.
        domains: some of its domains; those that can run on this machine when None. The others are `missing`.
        out: the file the result is written to. Domains that are done are kept in the folder `out`.partial until all
            are: the same policy, suite, versions and device go on from there.
        load: what makes a policy of its name and `model`.
        model, parallel, stop_if_unreadable, on_episode, progress: as in `gentax.evaluate`.

    Raises:
        UsageError: an unknown suite, domain or policy, a domain that is asked for but not installed, or an
            environment that is not as it was when the suite was frozen, or replies that cannot be read.
    """
    frozen = load_suite(suite)
    chosen = playable_domains(frozen, domains)
    player = load(policy, model)
    weights = None  # other policies are identified by their name alone
    if isinstance(policy, (str, Path)) and str(policy) not in SCRIPTED_BY_NAME and may_name_model(policy):
        weights = fingerprint(policy, model)
    result = SuiteResult(
        suite=frozen.name,
        digest=frozen.digest,
        policy=player.name,
        fingerprint=weights,
        runtime=getattr(player, "runtime", None),
        made_with=versions(chosen),
        missing=tuple(name for name in frozen.domains if name not in chosen),
    )
    partial_folder = None if out is None else Path(f"{out}.partial")
    done = {} if partial_folder is None else _resumed(partial_folder, result, chosen)
    shown, starts = shows_progress(progress), {}
    for name in chosen:
        if shown and name in done:
            end_line()
            print(f"  {name}: played before, kept")
        elif shown:
            status(f"  {name}: checking that its tasks start as they were frozen")
        if name not in done:
            starts[name] = check_starts(frozen, name)
    counted = Usage()  # of the domains before, for a policy counts all that it was asked
    for n, (name, seen) in enumerate(starts.items()):
        of_domain = frozen.domains[name]
        count = EpisodeProgress(len(seen) * frozen.samples, name, progress, on_episode)
        count.begin()
        try:
            found = evaluate(
                player,
                {name: of_domain.level},
                tasks=len(of_domain.starts),
                split=of_domain.split,
                samples=frozen.samples,
                config=frozen.play_of(name),
                seed=frozen.seed,
                parallel=parallel,
                on_episode=count,
                on_steps=count.steps,
                stop_if_unreadable=stop_if_unreadable and n == 0,
                progress=False,
            )
        except UnreadableReplies as error:
            raise UsageError(f"{error} (suite {frozen.name} fixes all other settings)") from None
        played = tuple(map(PlayedEpisode.of, found.episodes[name]))
        done[name] = replace(
            result,
            missing=tuple(other for other in frozen.domains if other != name),
            domains={name: DomainResult(of_domain.level, of_domain.horizon, seen, played)},
            usage=None if found.usage is None else found.usage - counted,
        )
        counted = found.usage or counted
        if partial_folder is not None:
            write_lines(partial_folder / f"{name}.json", done[name].to_json())
    used = [part.usage for part in done.values() if part.usage is not None]
    result = replace(
        result,
        domains={name: done[name].domains[name] for name in chosen},
        usage=sum(used[1:], used[0]) if used else None,
    )
    if out is not None and partial_folder is not None:
        write_lines(out, result.to_json())
        for name in frozen.domains:
            (partial_folder / f"{name}.json").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else lies there
            partial_folder.rmdir()
    return result


def _resumed(partial_folder: Path, result: SuiteResult, chosen: Iterable[str]) -> dict[str, SuiteResult]:
    """Return the results of the domains that the same policy played with the same versions before it was stopped."""
    done = {}
    for name in chosen:
        with contextlib.suppress(UsageError):  # no such file, or none of ours: the domain is played
            earlier = read_result(partial_folder / f"{name}.json")
            same = replace(earlier, missing=result.missing, domains={}, usage=None) == result
            if same and list(earlier.domains) == [name] and all(check.passed for check in check_result(earlier)):
                done[name] = earlier
    return done

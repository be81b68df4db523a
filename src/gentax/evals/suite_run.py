"""Play a suite. A domain that is done is kept beside the result, so that being stopped costs one domain at most."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from gentax.core import Episode, UsageError, unknown
from gentax.domains import domain, missing_modules
from gentax.evals.suite import Suite, check_starts, load_suite, versions
from gentax.evals.suite_result import (
    DomainResult,
    PlayedEpisode,
    SuiteResult,
    check_result,
    read_result,
    write_suite_result,
)
from gentax.models.options import ModelOptions
from gentax.models.source import fingerprint, may_name_model
from gentax.policies import Policy, load_policy
from gentax.policies.load import SCRIPTED, SCRIPTED_BY_NAME
from gentax.rollouts import EnvPool, rollout
from gentax.rollouts.engine import UnreadableReplies


def play_suite(
    policy: str | Path | Policy,
    suite: str = "v2",
    domains: Iterable[str] | None = None,
    *,
    out: str | Path | None = None,
    model: ModelOptions = ModelOptions(),
    parallel: int | None = None,
    stop_if_unreadable: bool = True,
    on_episode: Callable[[Episode], None] | None = None,
    on_steps: Callable[[int], None] | None = None,
    on_domain: Callable[[str, str], None] | None = None,
) -> SuiteResult:
    """Play `policy` on a frozen suite, after checking that every task starts here as it was frozen.

    Args:
        policy: "random", "expert", the name of a model, or any `Policy` (see `load_policy`).
        suite: the suite's name.
        domains: some of its domains; those that can run on this machine when None. The others are `missing`.
        out: the file the result is written to. Domains that are done are kept in the folder `out`.partial until all
            are: the same policy, suite, versions and device go on from there.
        model, parallel, stop_if_unreadable, on_episode, on_steps: as in `gentax.evaluate`.
        on_domain: called with what is about to be done with a domain ("keep", "check" or "play"), and its name.

    Raises:
        UsageError: an unknown suite, domain or policy, a domain that is asked for but not installed, or an
            environment that is not as it was when the suite was frozen, or replies that cannot be read.
    """
    frozen = load_suite(suite)
    chosen = _chosen(frozen, domains)
    player = load_policy(policy, model)
    tell = on_domain or (lambda doing, name: None)
    result = SuiteResult(
        suite=frozen.name,
        digest=frozen.digest,
        policy=player.name,
        fingerprint=_weights(policy, model),
        runtime=getattr(player, "runtime", None),
        made_with=versions(chosen),
        missing=tuple(name for name in frozen.domains if name not in chosen),
    )
    aside = None if out is None else Path(f"{out}.partial")
    done = {} if aside is None else _resumed(aside, result, chosen)
    starts = {}
    for name in chosen:
        tell("keep" if name in done else "check", name)
        if name not in done:
            starts[name] = check_starts(frozen, name)
    readable = stop_if_unreadable and not isinstance(player, SCRIPTED)
    for n, (name, seen) in enumerate(starts.items()):
        tell("play", name)
        of_domain, config = frozen.domains[name], frozen.play_of(name)
        try:
            with EnvPool(config) as pool:
                episodes = rollout(
                    player,
                    of_domain.tasks(),
                    config=config,
                    samples=frozen.samples,
                    seed=frozen.seed,
                    parallel=parallel,
                    pool=pool,
                    on_episode=on_episode,
                    on_steps=on_steps,
                    stop_if_unreadable=readable and n == 0,
                )
        except UnreadableReplies as error:
            raise UsageError(f"{error} (suite {frozen.name} fixes all other settings)") from None
        played = tuple(map(PlayedEpisode.of, episodes))
        done[name] = DomainResult(of_domain.level, of_domain.horizon, seen, played)
        if aside is not None:
            rest = tuple(other for other in frozen.domains if other != name)
            write_suite_result(aside / f"{name}.json", replace(result, missing=rest, domains={name: done[name]}))
    result = replace(result, domains={name: done[name] for name in chosen})
    if out is not None and aside is not None:
        write_suite_result(out, result)
        _clear(aside, frozen)
    return result


def _chosen(suite: Suite, domains: Iterable[str] | None) -> list[str]:
    """Return the domains to play, in the suite's order."""
    if domains is None:
        chosen = [name for name in suite.domains if not missing_modules(domain(name))]
    else:
        asked = set(domains)
        for name in sorted(asked - set(suite.domains)):
            raise unknown(f"domain of suite {suite.name}", name, suite.domains)
        chosen = [name for name in suite.domains if name in asked]
    for name in chosen:
        if lacking := missing_modules(domain(name)):
            raise UsageError(f"domain {name!r} needs {', '.join(lacking)}: {domain(name).enable}")
    if not chosen:
        raise UsageError(f"no domain of suite {suite.name} to play")
    return chosen


def _resumed(aside: Path, result: SuiteResult, chosen: Iterable[str]) -> dict[str, DomainResult]:
    """Return the domains that the same policy played with the same versions before it was stopped."""
    done = {}
    for name in chosen:
        with contextlib.suppress(UsageError):  # no such file, or none of ours: the domain is played
            earlier = read_result(aside / f"{name}.json")
            same = replace(earlier, missing=result.missing, domains={}) == result
            if same and list(earlier.domains) == [name] and all(check.passed for check in check_result(earlier)):
                done[name] = earlier.domains[name]
    return done


def _clear(aside: Path, suite: Suite) -> None:
    for name in suite.domains:
        (aside / f"{name}.json").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else lies there
        aside.rmdir()


def _weights(policy: str | Path | Policy, model: ModelOptions) -> str | None:
    """Return the fingerprint of a policy that is a local model; of others the name must do."""
    if not isinstance(policy, (str, Path)) or str(policy) in SCRIPTED_BY_NAME:
        return None
    return fingerprint(policy, model) if may_name_model(policy) else None

"""The tax of two policies: `gentax.tax`. Those that are played for it are played look by look, no longer than it takes.

Both play the same tasks with the same random numbers. After each look at what there is so far the verdict is taken;
once it is clear, playing stops. The intervals are repeated confidence intervals (see `statistics.sequential`): they
hold the truth whenever one stops.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gentax.core import Episode, UsageError, unknown
from gentax.core.progress import count_episodes
from gentax.domains import domain, domains, missing
from gentax.measure.evaluate import Evaluation, scores_of, tasks_of
from gentax.measure.statistics import Looks
from gentax.measure.suites import paired, read_result
from gentax.measure.tax import ERROR_SHARE, TaxReport, tax_report
from gentax.measure.verdict import FREE_WITHIN, Verdict, verdict
from gentax.models.requests import ModelOptions
from gentax.policies import Policy, policy_pair
from gentax.policies.simple import SCRIPTED
from gentax.rollouts import EnvPool, Play, rollout
from gentax.rollouts.prompt import with_budget
from gentax.rollouts.readable import unreadable_steps

LOOKS = 5


def tax(
    base: str | Path | Policy | Evaluation,
    tuned: str | Path | Policy | Evaluation,
    source: str,
    targets: Iterable[str] | Mapping[str, str | None] | None = None,
    *,
    tasks: int = 128,
    looks: int = LOOKS,
    model: ModelOptions = ModelOptions(),
    **settings: Any,
) -> TaxReport:
    """Say what tuning on `source` cost elsewhere: both policies play the same tasks with the same random numbers.

    Args:
        base: the policy before, its evaluation, or a file that `gentax evaluate --suite` wrote.
        tuned: the policy after, likewise; nothing is played for two evaluations or two files.
        source: the domain `tuned` was trained on.
        targets: the other domains, or one (with levels, if a mapping); all that are installed when None.
        tasks: test tasks of each domain.
        looks: how often the verdict is taken while they are played; it stops when that is clear. 1: play them all.
        model: how policies that are named are loaded: device, dtype.
        settings: what `play_tax` takes.

    Raises:
        UsageError: an unknown policy, domain or level, evaluations that do not pair, results that are not sound; see
            also `measure.tax.tax_report`.
    """
    targets = [targets] if isinstance(targets, str) else targets
    if is_result(base) and is_result(tuned):
        return tax_of_results(Path(str(base)), Path(str(tuned)), source, targets)
    if is_result(base) or is_result(tuned):
        raise UsageError("a result file is compared with another one: evaluate both policies on the suite")
    if isinstance(base, Evaluation) and isinstance(tuned, Evaluation):
        return _tax_of(base, tuned, source, targets)
    if isinstance(base, Evaluation) or isinstance(tuned, Evaluation):
        raise UsageError("an evaluation is compared with another one, not with a policy")
    levels = levels_of(source, targets)
    policies = policy_pair(base, tuned, model)
    return play_tax(*policies, source, levels, tasks=tasks, looks=Looks(looks), **settings).report


def is_result(what: object) -> bool:
    """Return whether `what` names a result file rather than a policy."""
    return isinstance(what, (str, Path)) and str(what).endswith(".json")


def levels_of(source: str, targets: Iterable[str] | Mapping[str, str | None] | None) -> dict[str, str | None]:
    """Return every domain to be played with its level: the targets (all that are installed when None), the source."""
    domain(source)
    if targets is None:
        targets = [name for name, record in domains().items() if not missing(record)]
    levels = dict(targets) if isinstance(targets, Mapping) else dict.fromkeys(targets)
    levels.setdefault(source, None)
    return levels


def tax_of_results(
    base: Path, tuned: Path, source: str, targets: Iterable[str] | Mapping[str, str | None] | None = None
) -> TaxReport:
    """Return the tax from two result files of one suite; nothing is played.

    Raises:
        UsageError: files that are no results, are not sound or are of different suites, a target they do not have.
    """
    results = read_result(base), read_result(tuned)
    return replace(_report(source, targets, *paired(*results)), runtime=_runtime(*results))


def _tax_of(
    before: Evaluation,
    after: Evaluation,
    source: str,
    targets: Iterable[str] | Mapping[str, str | None] | None,
) -> TaxReport:
    if replace(before.play, max_new_tokens=0) != replace(after.play, max_new_tokens=0) or (
        before.play.max_new_tokens != after.play.max_new_tokens
        and before.play.max_new_tokens  # 0 is that of policies that write no tokens
        and after.play.max_new_tokens
    ):
        raise UsageError("the two evaluations were not played with the same settings")
    for name in before.episodes:
        if [e.task for e in before.episodes[name]] != [e.task for e in after.episodes.get(name, [])]:
            raise UsageError(f"the two evaluations were not played on the same tasks of {name}")
    of = [{name: scores_of(episodes) for name, episodes in one.episodes.items()} for one in (before, after)]
    return replace(_report(source, targets, *of), runtime=_runtime(before, after))


def _runtime(base: Any, tuned: Any) -> dict[str, Mapping[str, str] | None]:
    """Return where two policies played, which may change what they did."""
    return {"base": getattr(base, "runtime", None), "tuned": getattr(tuned, "runtime", None)}


def _report(
    source: str, targets: Iterable[str] | None, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
) -> TaxReport:
    """Return the tax on `targets`, all that there are when None, from scores that were played before."""
    if targets is not None:
        wanted = list(dict.fromkeys([*targets, source]))
        for name in wanted:
            if name not in before or name not in after:
                raise unknown("domain of the two evaluations", name, before)
        before, after = ({name: of[name] for name in wanted} for of in (before, after))
    return tax_report(source, before, after)


@dataclass(frozen=True)
class PlayedTax:
    """A tax and the episodes it was made of."""

    report: TaxReport
    before: Evaluation
    after: Evaluation
    planned: int  # episodes of one policy, had nobody stopped early

    @property
    def played(self) -> int:
        """Episodes of one policy."""
        return sum(map(len, self.before.episodes.values()))


def play_tax(
    base: Policy,
    tuned: Policy,
    source: str,
    domains: Mapping[str, str | None],
    *,
    tasks: int,
    looks: Looks,
    samples: int = 1,
    play: Play | None = None,
    seed: int = 0,
    parallel: int | None = None,
    free_within: float = FREE_WITHIN,
    on_episode: Callable[[Policy, Episode], None] | None = None,
    on_look: Callable[[TaxReport], None] | None = None,
    stop_if_unreadable: bool = True,
    progress: bool | None = None,
) -> PlayedTax:
    """Play both policies on the source and the targets until the verdict on the tax is clear or all tasks are played.

    The run stops when most of the base's first replies hold no action that can be read. A tuned policy that writes
    such replies has collapsed, which is a result: it is warned about.

    Args:
        base: the policy before training.
        tuned: the policy after it.
        source: the domain it was trained on, one of `domains`.
        domains: every domain that is played, and its level (its default when None).
        tasks: test tasks of each domain at the last look; all of a split that has fewer.
        looks: how often the data are looked at, equally spaced.
        samples: episodes on each task.
        play: context, thinking, temperature and so on.
        seed: of the sampling; an episode draws the same numbers in one look or in several.
        parallel: episodes in flight at once; when None, as many as each policy's memory holds, 128 at most.
        free_within: a tax whose whole interval is this near 0 is free.
        on_episode: called with each episode as it ends, and whose it is.
        on_look: called with the report of each look.
        stop_if_unreadable: whether a base that cannot be read stops the run.
        progress: whether progress is shown; None for where a person is watching, in a terminal or a notebook.

    Raises:
        UsageError: an unknown domain or level, fewer than 2 tasks, too many errors, a base that cannot be read.
        PolicyFault: a policy that cannot be asked any more.
    """
    if tasks < 2:
        raise UsageError(f"a tax needs at least 2 tasks of each domain, not {tasks}")
    play = with_budget(play or Play(), base, tuned)
    listed = tasks_of(domains, tasks)
    policies = (base, tuned)
    episodes: list[dict[str, list[Episode]]] = [{name: [] for name in domains} for _ in policies]
    total = samples * sum(map(len, listed.values()))
    counts = [
        count_episodes(total, who.name, progress, None if on_episode is None else partial(on_episode, who))
        for who in policies
    ]
    readable = stop_if_unreadable and not isinstance(base, SCRIPTED)
    with ExitStack() as stack:
        pools = {name: stack.enter_context(EnvPool(play)) for name in domains}
        for look in range(1, looks.count + 1):
            for name, all_of in listed.items():
                done = looks.tasks(look - 1, len(all_of)) if look > 1 else 0
                fresh = all_of[done : looks.tasks(look, len(all_of))]
                for policy, its, count in zip(policies, episodes, counts, strict=True):
                    its[name] += rollout(
                        policy,
                        fresh,
                        play=play,
                        samples=samples,
                        seed=seed,
                        parallel=parallel,
                        pool=pools[name],
                        on_episode=count,
                        stop_if_unreadable=policy is base and readable and not any(its.values()),
                    )
                    if hasattr(policy, "rest"):  # the other one comes next, and needs the memory
                        policy.rest()
            if look == 1:
                _warn_if_unreadable(tuned.name, play, episodes[1])
            before, after = ({name: scores_of(of) for name, of in its.items()} for its in episodes)
            # An error is a larger share of what there is so far than of the whole.
            share = ERROR_SHARE * max(len(all_of) / looks.tasks(look, len(all_of)) for all_of in listed.values())
            report = tax_report(source, before, after, share, looks, look)
            report = replace(report, runtime=_runtime(base, tuned))
            if on_look is not None:
                on_look(report)
            if verdict(report.tax, free_within) is not Verdict.UNDECIDED:
                break
    return PlayedTax(
        report,
        Evaluation(base.name, play, episodes[0], report.runtime["base"]),
        Evaluation(tuned.name, play, episodes[1], report.runtime["tuned"]),
        total,
    )


def _warn_if_unreadable(policy: str, play: Play, episodes: Mapping[str, list[Episode]]) -> None:
    said = unreadable_steps(policy, play, [step for of in episodes.values() for one in of for step in one.steps])
    if said is not None:
        warnings.warn(f"{said}. It is measured as it is", stacklevel=3)

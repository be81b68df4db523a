"""The tax of two policies: `gentax.tax`. Those that are played for it are played look by look, no longer than it takes.

Both play the same tasks with the same random numbers. After each look at what there is so far the verdict is taken;
once it is clear, playing stops. The intervals are repeated confidence intervals (see `statistics.sequential`): they
hold the truth whenever one stops. Random play goes along on the same tasks, so that success above chance is known.

How many tasks it takes depends on a variance that nobody knows before. With `pilot`, so many tasks are played first;
their variance, and nothing of the drop, says how many tasks there are in all (an internal pilot, Wittes & Brittain
1990).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gentax.core import Episode, UsageError, unknown
from gentax.core.console import EpisodeProgress
from gentax.domains import domain, domains, missing
from gentax.evals.evaluate import Evaluation, scores_of, tasks_of
from gentax.evals.suites import load_suite, paired, read_result
from gentax.metrics.episode_scores import ERROR_SHARE, content_of
from gentax.metrics.statistics import InterimAnalyses, Pilot, episodes_needed
from gentax.metrics.tax import TaxReport, tax_report
from gentax.metrics.verdict import FREE_WITHIN, Verdict, headline, verdict
from gentax.models.requests import ModelOptions
from gentax.policies import Policy, load_policy_pair
from gentax.policies.scripted import SCRIPTED, RandomPolicy
from gentax.rollouts import EnvPool, RolloutConfig, rollout
from gentax.rollouts.engine import describe_unreadable
from gentax.rollouts.prompt import with_token_budget

LOOKS = 5


def tax(
    base: str | Path | Policy | Evaluation,
    tuned: str | Path | Policy | Evaluation,
    source: str,
    targets: Iterable[str] | Mapping[str, str | None] | None = None,
    *,
    tasks: int = 128,
    looks: int = LOOKS,
    touched: Set[str] = frozenset(),
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
        touched: domains that entered training in any form (see `gentax.training.check`): the verdict is on the
            targets that did not.
        model: how policies that are named are loaded: device, dtype.
        settings: what `play_tax` takes.

    Raises:
        UsageError: an unknown policy, domain or level, evaluations that do not pair, results that are not sound; see
            also `measure.tax.tax_report`.
    """
    targets = [targets] if isinstance(targets, str) else targets
    if is_result(base) and is_result(tuned):
        return tax_of_results(Path(str(base)), Path(str(tuned)), source, targets, touched)
    if is_result(base) or is_result(tuned):
        raise UsageError("a result file is compared with another one: evaluate both policies on the suite")
    if isinstance(base, Evaluation) and isinstance(tuned, Evaluation):
        return _tax_of(base, tuned, source, targets, touched)
    if isinstance(base, Evaluation) or isinstance(tuned, Evaluation):
        raise UsageError("an evaluation is compared with another one, not with a policy")
    levels = levels_of(source, targets)
    policies = load_policy_pair(base, tuned, model)
    return play_tax(
        *policies, source, levels, tasks=tasks, looks=InterimAnalyses(looks), touched=touched, **settings
    ).report


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
    base: Path,
    tuned: Path,
    source: str,
    targets: Iterable[str] | Mapping[str, str | None] | None = None,
    touched: Set[str] = frozenset(),
) -> TaxReport:
    """Return the tax from two result files of one suite; nothing is played.

    Clusters of tasks and random play's success are the suite's.

    Raises:
        UsageError: files that are no results, are not sound or are of different suites, a target they do not have.
    """
    results = read_result(base), read_result(tuned)
    scores = paired(*results)
    suite = load_suite(results[0].suite)
    clusters = {d: suite.clusters(d) for d in scores[0]}
    chance = {d: suite.chance(d) for d in scores[0]}
    report = _report(source, targets, *scores, clusters=clusters, touched=touched, chance=chance)
    return replace(report, runtime=_runtime(*results))


def _tax_of(
    before: Evaluation,
    after: Evaluation,
    source: str,
    targets: Iterable[str] | Mapping[str, str | None] | None,
    touched: Set[str],
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
    report = _report(source, targets, *of, clusters=before.clusters(), touched=touched)
    return replace(report, runtime=_runtime(before, after))


def _runtime(base: Any, tuned: Any) -> dict[str, Mapping[str, str] | None]:
    """Return where two policies played, which may change what they did."""
    return {"base": getattr(base, "runtime", None), "tuned": getattr(tuned, "runtime", None)}


def _report(
    source: str,
    targets: Iterable[str] | None,
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    **known: Any,
) -> TaxReport:
    """Return the tax on `targets`, all that there are when None, from scores that were played before."""
    if targets is not None:
        wanted = list(dict.fromkeys([*targets, source]))
        for name in wanted:
            if name not in before or name not in after:
                raise unknown("domain of the two evaluations", name, before)
        before, after = ({name: of[name] for name in wanted} for of in (before, after))
    return tax_report(source, before, after, **known)


@dataclass(frozen=True)
class PlayedTax:
    """A tax and the episodes it was made of."""

    report: TaxReport
    before: Evaluation
    after: Evaluation
    planned: int  # episodes of one policy, had nobody stopped early
    tasks: int = 0  # of each domain that were planned, after the pilot where there was one

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
    looks: InterimAnalyses,
    samples: int = 1,
    play: RolloutConfig | None = None,
    seed: int = 0,
    parallel: int | None = None,
    free_within: float = FREE_WITHIN,
    touched: Set[str] = frozenset(),
    chance: bool = True,
    pilot: int | None = None,
    drop: float | None = None,
    on_episode: Callable[[Policy, Episode], None] | None = None,
    on_pilot: Callable[[Pilot, int], None] | None = None,
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
        touched: domains that entered training in any form; the verdict is on the targets that did not.
        chance: whether random play goes along.
        pilot: tasks of each domain that are played before `tasks` is settled; needs `drop`.
        drop: mean drop in points that must not go unseen: with the pilot's variance it says how many tasks are
            played, no fewer than the pilot's, in place of `tasks`.
        on_episode: called with each episode as it ends, and whose it is; not with those of random play.
        on_pilot: called with what the pilot told and the tasks of each domain that are then played.
        on_look: called with the report of each look.
        stop_if_unreadable: whether a base that cannot be read stops the run.
        progress: whether progress is shown; None for where a person is watching, in a terminal or a notebook.

    Raises:
        UsageError: an unknown domain or level, fewer than 2 tasks, too many errors, a base that cannot be read.
        PolicyFault: a policy that cannot be asked any more.
    """
    if tasks < 2:
        raise UsageError(f"a tax needs at least 2 tasks of each domain, not {tasks}")
    if pilot is not None and (drop is None or pilot < 2):
        raise UsageError("a pilot of at least 2 tasks says how many tasks a drop takes: give the drop in points, too")
    play = with_token_budget(play or RolloutConfig(), base, tuned)
    listed = tasks_of(domains, tasks if pilot is None else pilot)
    policies = (base, tuned, RandomPolicy()) if chance else (base, tuned)
    episodes: list[dict[str, list[Episode]]] = [{name: [] for name in domains} for _ in policies]
    readable = stop_if_unreadable and not isinstance(base, SCRIPTED)

    def counter() -> EpisodeProgress:
        """Return what counts the episodes that are still to be played, of all policies."""
        left = sum(map(len, listed.values())) - sum(map(len, episodes[0].values())) // samples
        return EpisodeProgress(len(policies) * samples * left, "tax", progress)

    def play_first(upto: Mapping[str, int], count: EpisodeProgress) -> None:
        """Play, of each domain, the first so many tasks, but for those that were played before."""
        for name, all_of in listed.items():
            fresh = all_of[len(episodes[0][name]) // samples : upto[name]]
            for policy, its in zip(policies, episodes, strict=True):
                compared = policy is base or policy is tuned  # and not random play
                count.on_episode = partial(on_episode, policy) if on_episode is not None and compared else None
                count.begin(f"{name}, {policy.name}")
                its[name] += rollout(
                    policy,
                    fresh,
                    play=play,
                    samples=samples,
                    seed=seed,
                    parallel=parallel,
                    pool=pools[name],
                    on_episode=count,
                    on_steps=count.steps,
                    stop_if_unreadable=policy is base and readable and not any(its.values()),
                )
                if hasattr(policy, "rest"):  # the other one comes next, and needs the memory
                    policy.release_memory()

    def report_at(share: float, look: int) -> TaxReport:
        before, after = ({name: scores_of(of) for name, of in its.items()} for its in episodes[:2])
        random = {name: scores_of(of) for name, of in episodes[2].items()} if chance else None
        content = {name: content_of(of) for name, of in episodes[0].items()}
        found = tax_report(source, before, after, share, looks, look, clusters=content, touched=touched, chance=random)
        return replace(found, runtime=_runtime(base, tuned))

    with ExitStack() as stack:
        pools = {name: stack.enter_context(EnvPool(play)) for name in domains}
        if pilot is not None and drop is not None:
            play_first({name: len(of) for name, of in listed.items()}, counter())
            told = report_at(ERROR_SHARE * max(1.0, tasks / pilot), looks.count).pilot
            assert told is not None
            tasks = max(pilot, episodes_needed(drop, told.targets, looks, told.variance).tasks)
            listed = tasks_of(domains, tasks)
            if on_pilot is not None:
                on_pilot(told, tasks)
        count = counter()
        for look in range(1, looks.count + 1):
            upto = {name: looks.tasks(look, len(all_of)) for name, all_of in listed.items()}
            play_first(upto, count)
            if look == 1:
                _warn_if_unreadable(tuned.name, play, episodes[1])
            # An error is a larger share of what there is so far than of the whole.
            share = ERROR_SHARE * max(len(all_of) / upto[name] for name, all_of in listed.items())
            report = report_at(share, look)
            if on_look is not None:
                on_look(report)
            if verdict(headline(report), free_within) is not Verdict.UNDECIDED:
                break
    return PlayedTax(
        report,
        Evaluation(base.name, play, episodes[0], report.runtime["base"]),
        Evaluation(tuned.name, play, episodes[1], report.runtime["tuned"]),
        samples * sum(map(len, listed.values())),
        tasks,
    )


def _warn_if_unreadable(policy: str, play: RolloutConfig, episodes: Mapping[str, list[Episode]]) -> None:
    said = describe_unreadable(policy, play, [step for of in episodes.values() for one in of for step in one.steps])
    if said is not None:
        warnings.warn(f"{said}. It is measured as it is", stacklevel=3)

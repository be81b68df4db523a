"""Paired evaluation of two policies, with interim analyses: `gentax.tax`.

Both policies play the same tasks with the same random numbers. At each interim analysis the verdict is taken on the
episodes so far; once it is clear, playing stops. The intervals are repeated confidence intervals (see
`statistics.multiple_testing`), valid whenever one stops. With `pilot`, that many tasks are played first; their
variance, and nothing of the drop, determines the total (an internal pilot, Wittes & Brittain 1990).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from gentax.core import Episode, Outcome, UsageError, unknown
from gentax.core.console import EpisodeProgress, one_line
from gentax.core.imports import require
from gentax.domains import domain, domains, missing_modules
from gentax.evals.evaluate import Evaluation, tasks_of, usage_of
from gentax.evals.suite import RETIRED, load_suite
from gentax.evals.suite_result import SuiteResult, check_result, read_result
from gentax.metrics.episode_scores import MAX_ERROR_SHARE, RecordedScores, content_labels, task_success
from gentax.metrics.statistics import LEVEL, TASKS, Estimate, InterimAnalyses, Labels, Pilot, required_sample_size
from gentax.metrics.tax import DomainScores, TaxReport, tax_report
from gentax.metrics.verdict import Verdict, headline, number, verdict
from gentax.models.options import ModelOptions
from gentax.policies import Policy, load_policy_pair
from gentax.policies.load import SCRIPTED, RandomPolicy
from gentax.rollouts import EnvPool, RolloutConfig, rollout
from gentax.rollouts.engine import describe_unreadable
from gentax.rollouts.prompt import with_token_budget

INTERIM_ANALYSES = 5
DRAWS = 4000  # from the posterior of the mixed model


def tax(
    base: str | Path | Policy | Evaluation,
    tuned: str | Path | Policy | Evaluation,
    source: str,
    targets: Iterable[str] | Mapping[str, str | None] | None = None,
    *,
    tasks: int = 128,
    interim_analyses: int = INTERIM_ANALYSES,
    touched: Set[str] = frozenset(),
    recorded: Mapping[str, RecordedScores] | None = None,
    model: ModelOptions = ModelOptions(),
    **settings: Any,
) -> TaxReport:
    """Measure what tuning on `source` cost elsewhere: both policies play the same tasks with the same random numbers.

    Args:
        base: the policy before, its evaluation, or a file that `gentax evaluate --suite` wrote.
        tuned: the policy after, likewise; nothing is played for two evaluations or two files.
        source: the domain `tuned` was trained on.
        targets: the other domains, or one (with levels, if a mapping); all that are installed when None.
        tasks: test tasks of each domain.
        interim_analyses: how often the verdict is taken; playing stops when it is clear. 1: play all tasks.
        touched: domains that entered training in any form (see `gentax.training.check`): the verdict is on the
            targets that did not.
        recorded: further targets that others measured (see `integrations.sample_logs`); not with two evaluations.
        model: how policies that are named are loaded: device, dtype.
        settings: further arguments of `paired_evaluation`.

    Raises:
        UsageError: an unknown policy, domain or level, evaluations that do not pair, results that are not sound; see
            also `metrics.tax.tax_report`.
    """
    targets = [targets] if isinstance(targets, str) else targets
    if is_result(base) and is_result(tuned):
        return _tax_of_results(Path(str(base)), Path(str(tuned)), source, targets, touched, recorded)
    if is_result(base) or is_result(tuned):
        raise UsageError("a result file is compared with another one: evaluate both policies on the suite")
    if isinstance(base, Evaluation) and isinstance(tuned, Evaluation):
        return _tax_of(base, tuned, source, targets, touched)
    if isinstance(base, Evaluation) or isinstance(tuned, Evaluation):
        raise UsageError("an evaluation is compared with another one, not with a policy")
    domain(source)
    if targets is None:
        targets = [name for name, record in domains().items() if not missing_modules(record)]
    levels = dict(targets) if isinstance(targets, Mapping) else dict.fromkeys(targets)
    levels.setdefault(source, None)
    settings |= {
        "tasks": tasks,
        "analyses": InterimAnalyses(interim_analyses),
        "touched": touched,
        "recorded": recorded,
    }
    return paired_evaluation(*load_policy_pair(base, tuned, model), source, levels, **settings).report


def is_result(what: object) -> bool:
    """Return whether `what` names a result file rather than a policy."""
    return isinstance(what, (str, Path)) and str(what).endswith(".json")


def _tax_of_results(
    base: Path,
    tuned: Path,
    source: str,
    targets: Iterable[str] | None,
    touched: Set[str],
    recorded: Mapping[str, RecordedScores] | None,
) -> TaxReport:
    """Return the tax from two result files of one suite, which has the clusters of tasks and random play's success.

    Raises:
        UsageError: files that are no results, are not sound or are of different suites, a target they do not have.
    """
    results = read_result(base), read_result(tuned)
    scores, suite = paired_scores(*results), load_suite(results[0].suite)
    contents, chance = {d: suite.clusters(d) for d in scores[0]}, {d: suite.chance(d) for d in scores[0]}
    return _report(source, scores, contents, results, targets, recorded, touched=touched, chance=chance)


def paired_scores(before: SuiteResult, after: SuiteResult) -> tuple[DomainScores, DomainScores]:
    """Return the scores of two policies on the domains that both played, as `tax_report` takes them.

    Raises:
        UsageError: results of a retired suite or of different suites, results that `gentax verify` refuses, or no
            domain in common.
    """
    for result in (before, after):
        if result.suite in RETIRED:
            reason = f"which is retired: {RETIRED[result.suite]}"
            raise UsageError(f"the result of {one_line(result.policy, 80)} is of suite {result.suite}, {reason}")
    if (before.suite, before.digest) != (after.suite, after.digest):
        names = [f"{one_line(result.suite, 40)} ({one_line(result.digest, 40)})" for result in (before, after)]
        raise UsageError(f"results of different suites do not compare: {names[0]} and {names[1]}")
    for result in (before, after):
        for check in check_result(result):
            if not check.passed:
                policy = one_line(result.policy, 80)
                raise UsageError(f"the result of {policy} is not sound: {check.name}: {check.found}")
    suite = load_suite(before.suite)  # whose order pairs the tasks, whatever the order of a file
    common = [name for name in suite.domains if name in before.domains and name in after.domains]
    if not common:
        raise UsageError(f"the two results have no domain of suite {before.suite} in common")
    starts = {name: suite.domains[name].starts for name in common}
    first, second = ({n: result.domains[n].scores(starts[n]) for n in common} for result in (before, after))
    return first, second


def tax_of_recorded(recorded: Mapping[str, RecordedScores], source: str, touched: Set[str] = frozenset()) -> TaxReport:
    """Return the tax on what others measured alone; ΔID is known where the source is among it. Raises UsageError."""
    return _report(source, ({}, {}), {}, (), None, recorded, touched=touched)


def _tax_of(
    before: Evaluation, after: Evaluation, source: str, targets: Iterable[str] | None, touched: Set[str]
) -> TaxReport:
    budgets = {config.max_new_tokens for config in (before.config, after.config)} - {0}  # 0: it writes no tokens
    if len(budgets) > 1 or replace(before.config, max_new_tokens=0) != replace(after.config, max_new_tokens=0):
        raise UsageError("the two evaluations were not played with the same settings")
    for name in before.episodes:
        if [e.task for e in before.episodes[name]] != [e.task for e in after.episodes.get(name, [])]:
            raise UsageError(f"the two evaluations were not played on the same tasks of {name}")
    scores = _scores(before.episodes), _scores(after.episodes)
    return _report(source, scores, before.clusters(), (before, after), targets, touched=touched)


def _scores(episodes: Mapping[str, list[Episode]]) -> dict[str, np.ndarray]:
    return {name: task_success(of_domain) for name, of_domain in episodes.items()}


def _report(
    source: str,
    scores: tuple[DomainScores, DomainScores],
    clusters: Mapping[str, Labels],
    policies: Sequence[Any],
    targets: Iterable[str] | None = None,
    recorded: Mapping[str, RecordedScores] | None = None,
    *settings: Any,
    **known: Any,
) -> TaxReport:
    """Return the tax on `targets`, all of them when None, and on those that others measured.

    Args:
        source: the domain trained on.
        scores: before and after, by domain.
        clusters: the contents of tasks, by domain.
        policies: both of them, or what was made with them: their device and dtype may change what they do.
        targets: names of the domains that were played.
        recorded: the scores of others.
        settings, known: further arguments of `tax_report`.
    """
    recorded = recorded or {}
    if twice := sorted(set(recorded) & set(scores[0])):
        raise UsageError(f"{twice[0]} is played and is among the results of others, too: give these another name")
    before = {**scores[0], **{name: one.before_K for name, one in recorded.items()}}
    after = {**scores[1], **{name: one.after_K for name, one in recorded.items()}}
    if targets is not None:
        wanted = list(dict.fromkeys([*targets, *recorded, source]))
        for name in wanted:
            if name not in before or name not in after:
                raise unknown("domain of the two evaluations", name, before)
        before, after = ({name: of[name] for name in wanted} for of in (before, after))
    clusters = {**clusters, **{name: one.contents for name, one in recorded.items()}}
    report = tax_report(source, before, after, *settings, clusters=clusters, **known)
    runtime = {role: getattr(one, "runtime", None) for role, one in zip(("base", "tuned"), policies, strict=False)}
    return replace(report, runtime=runtime)


@dataclass(frozen=True)
class PairedEvaluation:
    """A tax and the episodes it was computed from."""

    report: TaxReport
    base: Evaluation
    tuned: Evaluation
    planned: int  # episodes of one policy, without early stopping

    @property
    def played(self) -> int:
        """Episodes of one policy."""
        return sum(map(len, self.base.episodes.values()))


def paired_evaluation(
    base: Policy,
    tuned: Policy,
    source: str,
    domains: Mapping[str, str | None],
    *,
    tasks: int,
    analyses: InterimAnalyses,
    samples: int = 1,
    config: RolloutConfig | None = None,
    seed: int = 0,
    parallel: int | None = None,
    touched: Set[str] = frozenset(),
    chance: bool = True,
    recorded: Mapping[str, RecordedScores] | None = None,
    pilot: int | None = None,
    drop: float | None = None,
    on_pilot: Callable[[Pilot, int], None] | None = None,
    on_analysis: Callable[[TaxReport], None] | None = None,
    decided: Callable[[TaxReport], bool] | None = None,
    stop_if_unreadable: bool = True,
    progress: bool | None = None,
) -> PairedEvaluation:
    """Play both policies on the source and the targets until the verdict on the tax is clear or all tasks are played.

    The run stops when most of the base's first replies hold no action that can be read. A tuned policy that writes
    such replies has collapsed, which is a result: it is warned about.

    Args:
        base: the policy before training.
        tuned: the policy after it.
        source: the domain it was trained on, one of `domains`.
        domains: every domain that is played, and its level (its default when None).
        tasks: test tasks of each domain at the final analysis; all of a split that has fewer.
        analyses: the interim analyses, equally spaced.
        samples, config, seed, parallel: as in `gentax.evaluate`.
        touched: domains that entered training in any form; the verdict is on the targets that did not.
        chance: whether random play is evaluated, too.
        recorded: further targets that others measured (see `integrations.sample_logs`); known in full from the first
            analysis on, where their intervals are wider than they need be.
        pilot: tasks of each domain that are played before `tasks` is decided; needs `drop`.
        drop: mean drop in points that must be detected: with the pilot's variance it decides how many tasks are
            played, no fewer than the pilot's, in place of `tasks`.
        on_pilot: called with the pilot and the number of tasks of each domain that are then played.
        on_analysis: called with the report of each interim analysis.
        decided: whether playing may stop at an interim analysis, such as `Gate.settled`; once the verdict on the tax is
            clear when None.
        stop_if_unreadable: whether a base that cannot be read stops the run.
        progress: whether progress is shown; None for where a person is watching, in a terminal or a notebook.

    Raises:
        UsageError: an unknown domain or level, fewer than 2 tasks, too many errors, a base that cannot be read.
        PolicyFault: a policy that no longer answers.
    """
    if tasks < 2:
        raise UsageError(f"a tax needs at least 2 tasks of each domain, not {tasks}")
    if pilot is not None and (drop is None or pilot < 2):
        raise UsageError("a pilot of at least 2 tasks says how many tasks a drop takes: give the drop in points, too")
    config = with_token_budget(config or RolloutConfig(), base, tuned)
    listed = tasks_of(domains, tasks if pilot is None else pilot)
    policies = (base, tuned, RandomPolicy()) if chance else (base, tuned)
    episodes: list[dict[str, list[Episode]]] = [{name: [] for name in domains} for _ in policies]
    readable = stop_if_unreadable and not isinstance(base, SCRIPTED)

    def progress_bar() -> EpisodeProgress:
        """Return the progress over the episodes that are still to be played, of all policies."""
        left = sum(map(len, listed.values())) - sum(map(len, episodes[0].values())) // samples
        return EpisodeProgress(len(policies) * samples * left, "tax", progress)

    def play_until(counts: Mapping[str, int], bar: EpisodeProgress) -> None:
        """Play the first so many tasks of each domain, except those that were played before."""
        for name, domain_tasks in listed.items():
            new = domain_tasks[len(episodes[0][name]) // samples : counts[name]]
            for policy, by_domain in zip(policies, episodes, strict=True):
                bar.begin(f"{name}, {policy.name}")
                by_domain[name] += rollout(
                    policy,
                    new,
                    config=config,
                    samples=samples,
                    seed=seed,
                    parallel=parallel,
                    pool=pools[name],
                    on_episode=bar,
                    on_steps=bar.steps,
                    stop_if_unreadable=policy is base and readable and not any(by_domain.values()),
                )
                if hasattr(policy, "release_memory"):  # the other one comes next, and needs the memory
                    policy.release_memory()

    def report_at(max_error_share: float, analysis: int) -> TaxReport:
        before, after, *random = map(_scores, episodes)
        labels = {name: content_labels(of_domain) for name, of_domain in episodes[0].items()}
        known: dict[str, Any] = {"touched": touched, "chance": random[0] if random else None}
        settings = (max_error_share, analyses, analysis)
        return _report(source, (before, after), labels, (base, tuned), None, recorded, *settings, **known)

    with ExitStack() as stack:
        pools = {name: stack.enter_context(EnvPool(config)) for name in domains}
        if pilot is not None and drop is not None:
            play_until({name: len(of) for name, of in listed.items()}, progress_bar())
            estimate = report_at(MAX_ERROR_SHARE * max(1.0, tasks / pilot), analyses.count).pilot
            assert estimate is not None
            tasks = max(pilot, required_sample_size(drop, estimate.targets, analyses, estimate.variance))
            listed = tasks_of(domains, tasks)
            if on_pilot is not None:
                on_pilot(estimate, tasks)
        bar = progress_bar()
        for analysis in range(1, analyses.count + 1):
            counts = {name: analyses.tasks(analysis, len(of)) for name, of in listed.items()}
            play_until(counts, bar)
            if analysis == 1:
                steps = [step for of_domain in episodes[1].values() for episode in of_domain for step in episode.steps]
                if problem := describe_unreadable(tuned.name, config, steps):
                    warnings.warn(f"{problem}. It is measured as it is", stacklevel=2)
            # One error is a larger share of the tasks so far than of all of them.
            report = report_at(MAX_ERROR_SHARE * max(len(of) / counts[name] for name, of in listed.items()), analysis)
            if on_analysis is not None:
                on_analysis(report)
            if decided(report) if decided else verdict(headline(report)) is not Verdict.UNDECIDED:
                break
    return PairedEvaluation(
        report,
        Evaluation(base.name, config, episodes[0], report.runtime["base"], usage_of(base)),
        Evaluation(tuned.name, config, episodes[1], report.runtime["tuned"], usage_of(tuned)),
        samples * sum(map(len, listed.values())),
    )


@dataclass(frozen=True)
class MixedModel:
    """A second opinion: the tax under a logistic mixed model, beside intervals that assume no model.

    logit P(success) = an effect of each domain before and after + a normal effect of each task + one of each content
    that several tasks share. Fitted by variational Bayes (`statsmodels`, BinomialBayesMixedGLM); the effects'
    covariance is that of the Laplace approximation about its mean, since a mean-field posterior has none. Success is
    averaged over tasks before it is added up, so the tax means what it means elsewhere. Where this and the main
    interval part, few clusters or rates near 0 or 1 deserve a look. Left out: training seeds; it is for one checkpoint.
    """

    tax: Estimate
    drop: Mapping[str, Estimate]  # points, targets only

    def sentences(self) -> list[str]:
        """Say the tax and the drops."""
        drops = "; ".join(f"{target} {drop.text(1)}" for target, drop in self.drop.items())
        tax = f"{number(100 * self.tax.value)} % ({number(100 * self.tax.low)} % to {number(100 * self.tax.high)} %)"
        return [f"Sensitivity: under a logistic mixed model the tax is {tax}, the drops in points {drops}."]


def check_statsmodels() -> None:
    """Raise UsageError where statsmodels is missing."""
    require("statsmodels", "the sensitivity check")


def mixed_model(before: Evaluation, after: Evaluation, source: str) -> MixedModel:
    """Fit the model to the episodes of two policies on the same tasks, as a tax was computed from.

    Deterministic. Episodes that ended in an error are left out. Raises UsageError where statsmodels is missing.
    """
    check_statsmodels()
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

    targets = sorted(set(before.episodes) - {source})
    rows = [
        (2 * d + late, episode.task.id, f"{t} {episode.content or episode.task.id}", episode.success)
        for d, t in enumerate(targets)
        for late, of in enumerate((before, after))
        for episode in of.episodes[t]
        if episode.outcome is not Outcome.ERROR
    ]
    effect, task, content = (np.unique([row[i] for row in rows], return_inverse=True)[1] for i in range(3))
    won = np.array([row[3] for row in rows], float)
    fixed = np.eye(2 * len(targets))[effect]
    groups = [np.eye(task.max() + 1)[task]]
    if content.max() < task.max():  # tasks that share their content
        groups.append(np.eye(content.max() + 1)[content])
    random = np.concatenate(groups, axis=1)
    kind = np.repeat(np.arange(len(groups)), [of.shape[1] for of in groups])
    model = BinomialBayesMixedGLM(won, fixed, random, kind)
    size = fixed.shape[1] + len(groups) + random.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of gradients that end a little above the tolerance
        fit = model.fit_vb(mean=np.zeros(size), sd=np.full(size, 0.5), fit_method="L-BFGS-B")

    # Laplace: the curvature of the log posterior at the mean, given the spread of tasks.
    both = np.concatenate([fixed, random], axis=1)
    p = expit(fixed @ fit.fe_mean + random @ fit.vc_mean)
    prior = np.concatenate([np.full(fixed.shape[1], 1 / model.fe_p**2), np.exp(-2 * fit.vcp_mean)[kind]])
    covariance = np.linalg.inv((both * (p * (1 - p))[:, None]).T @ both + np.diag(prior))
    rng, (nodes, weights) = np.random.default_rng(0), np.polynomial.hermite_e.hermegauss(31)
    ends = fixed.shape[1]
    drawn_NE = rng.multivariate_normal(fit.fe_mean, covariance[:ends, :ends], DRAWS, method="cholesky")
    spread_NG = np.exp(fit.vcp_mean + fit.vcp_sd * rng.standard_normal((DRAWS, len(groups))))
    spread_N = np.sqrt((spread_NG**2).sum(1))
    success_NE = expit(drawn_NE[..., None] + spread_N[:, None, None] * nodes) @ weights / weights.sum()
    init_ND, after_ND = success_NE[:, ::2], success_NE[:, 1::2]
    tasks = {t: len(dict.fromkeys(episode.task for episode in before.episodes[t])) for t in targets}

    def estimate(drawn_N: np.ndarray, unit: str, n: int) -> Estimate:
        low, high = np.quantile(drawn_N, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(float(np.median(drawn_N)), float(low), float(high), TASKS, unit, n)

    return MixedModel(
        tax=estimate(1 - after_ND.sum(1) / init_ND.sum(1), "fraction", sum(tasks.values())),
        drop={t: estimate(100 * (init_ND[:, d] - after_ND[:, d]), "points", tasks[t]) for d, t in enumerate(targets)},
    )

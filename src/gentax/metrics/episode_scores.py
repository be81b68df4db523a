"""From episodes to scores: success per task, content labels, tasks excluded for errors, truncated replies and prompts.

A task on which an episode of any policy ended in an error is excluded for every policy, so that scores stay paired. A
truncated reply used up its token budget, so it often holds no action. That is a matter of `max_new_tokens` more than of
the policy, and such steps are not counted as invalid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from gentax.core import Episode, Outcome, Task, UsageError
from gentax.core.results import Record
from gentax.metrics.statistics import Labels, Scores

MAX_ERROR_SHARE = 0.02  # of a domain's tasks that may be excluded because an environment failed


@dataclass(frozen=True)
class RecordedScores:
    """Scores of one target that others measured before training and after it, paired by sample."""

    before_K: np.ndarray  # in [0, 1]; NaN where the sample ended in an error
    after_K: np.ndarray
    contents: Sequence[str]  # a label (K,) for each sample; samples with the same label share their content


MANY = 0.05  # a share of truncated replies or prompts from which a warning is due


def content_labels(episodes: Iterable[Episode]) -> list[str]:
    """Return the content of each task, in the order in which tasks first come up; "" where it is not known."""
    labels: dict[Task, str] = {}
    for episode in episodes:
        labels[episode.task] = labels.get(episode.task) or episode.content
    return list(labels.values())


def unknown_content_caveat(domains: Sequence[str]) -> str:
    """Return what cannot be claimed of domains that do not say what their tasks are made of; "" for no domain."""
    if not domains:
        return ""
    verb, their = ("does", "its") if len(domains) == 1 else ("do", "their")
    return (
        f"{', '.join(domains)} {verb} not say what {their} tasks are made of: nobody can claim that test tasks are new "
        "to training, and each counts as independent of the others."
    )


def task_success(episodes: Iterable[Episode], tasks: Iterable[Task] | None = None) -> np.ndarray:
    """Return (K,) mean success over samples of each task; NaN where an episode ended in an error.

    In the order of `tasks`; in that of the episodes when None.

    Raises:
        UsageError: a task without an episode.
    """
    scores: dict[Task, list[float]] = {}
    for episode in episodes:
        value = np.nan if episode.outcome is Outcome.ERROR else float(episode.success)
        scores.setdefault(episode.task, []).append(value)
    tasks = list(scores if tasks is None else tasks)
    missing = [task.id for task in tasks if task not in scores]
    if missing:
        raise UsageError(f"{len(missing)} of {len(tasks)} tasks have no episode, the first is {missing[0]}")
    return np.array([np.mean(scores[task]) for task in tasks])


def check_errors(broken_K: np.ndarray, domain: str, max_error_share: float = MAX_ERROR_SHARE) -> None:
    """Raise UsageError where too many tasks ended in an error: the rest is no fair sample."""
    if broken_K.mean() > max_error_share:
        raise UsageError(
            f"{broken_K.sum()} of {len(broken_K)} tasks on {domain} ended in an error, more than "
            f"{100 * max_error_share:g} %: what broke must be fixed before anything is measured on it"
        )


def error_free_scores(
    roles: Mapping[str, Mapping[str, np.ndarray]],
    clusters: Mapping[str, Labels] | None = None,
    max_error_share: float = MAX_ERROR_SHARE,
) -> tuple[Scores, dict[str, int]]:
    """Return the scores of the tasks on which no role has NaN, and how many tasks each domain lost.

    Args:
        roles: role -> domain -> (K,) or (S, K); see `Scores`.
        clusters: domain -> a label (K,) for each task; domains that no role has are ignored.
        max_error_share: the share of a domain's tasks that may be excluded.

    Raises:
        UsageError: tasks that do not pair, labels of another number of tasks, or a domain that loses more than
            `max_error_share` of its tasks.
    """
    arrays = {role: {d: np.atleast_2d(np.asarray(x, float)) for d, x in of.items()} for role, of in roles.items()}
    usable: dict[str, np.ndarray] = {}
    for domain in sorted({d for of in arrays.values() for d in of}):
        of_domain = [of[domain] for of in arrays.values() if domain in of]
        counts = [x.shape[-1] for x in of_domain]
        if len(set(counts)) > 1:
            raise UsageError(f"tasks must pair: the policies have {counts} tasks on {domain}")
        broken_K = np.any([np.isnan(x).any(0) for x in of_domain], axis=0)
        check_errors(broken_K, domain, max_error_share)
        usable[domain] = ~broken_K
    kept = {role: {d: x[:, usable[d]] for d, x in of.items()} for role, of in arrays.items()}
    labels: dict[str, Labels] = {}
    for domain in usable.keys() & (clusters or {}).keys():
        given = (clusters or {})[domain]
        if len(given) != len(usable[domain]):
            raise UsageError(f"{domain} has {len(usable[domain])} tasks and {len(given)} cluster labels")
        labels[domain] = list(compress(given, usable[domain]))
    return Scores(kept, clusters=labels), {d: int((~of).sum()) for d, of in usable.items()}


@dataclass(frozen=True)
class Truncation(Record):
    """What token budgets cut off, as shares of the steps of some episodes."""

    truncated: float = 0.0  # replies that were cut off at `max_new_tokens`
    cut_prompts: float = 0.0  # prompts that lost part of a message, or earlier exchanges
    dropped_exchanges: int = 0  # how many exchanges were lost in all

    @classmethod
    def of(cls, episodes: Iterable[Episode]) -> Truncation:
        """Count in episodes; those that ended in an error are left out."""
        steps = [step for e in episodes if e.outcome is not Outcome.ERROR for step in e.steps]
        count = max(1, len(steps))
        return cls(
            sum(step.truncated for step in steps) / count,
            sum(step.prompt_cut or step.dropped > 0 for step in steps) / count,
            sum(step.dropped for step in steps),
        )

    def __bool__(self) -> bool:
        return self != Truncation()

    def sentences(self, policy: str) -> list[str]:
        """Return what was lost, and from 5 % on what to do about it; nothing where nothing was."""
        lines = []
        if self.truncated:
            more = "; give more with --max-new-tokens" if self.truncated > MANY else ""
            lines.append(
                f"{_share(self.truncated)} of the replies of {policy} were cut off before they "
                f"were over; they are not counted as invalid{more}."
            )
        if self.cut_prompts:
            lost = f", {self.dropped_exchanges} exchanges in all" if self.dropped_exchanges else ""
            more = "; try --context 'window(4)'" if self.cut_prompts > MANY and self.dropped_exchanges else ""
            lines.append(
                f"{_share(self.cut_prompts)} of the prompts of {policy} lost text that its "
                f"context cannot hold{lost}{more}."
            )
        return lines


def _share(share: float) -> str:
    """Write a share that is not 0, with a warning where it is large."""
    percent = f"{share:.1%}"
    return "Warning: " * (share > MANY) + ("fewer than 0.1%" if percent == "0.0%" else percent)

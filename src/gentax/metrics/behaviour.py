"""Behaviour of a policy in its episodes: invalid and repeated actions, loops, giving up, the cost of a success.

**State.** A state is known by its text: the observation after the last accepted action, or the first observation. A
refused action leaves the agent where it was, whatever the refusal says. Distractors make one state read as several, so
compare policies that played in the same way, not domains.

**No progress.** A deterministic environment answers the same action in the same state in the same way, so repeating an
action there brings nothing. `redone` counts that, and giving up is defined by it (as Reflexion, Shinn et al. 2023,
detects a stuck agent); a loop here has repeated three times.

**Outcomes.** Every episode has one of four: success, ended early, gave up, ran out, after the finish reasons of
AgentBench (Liu et al. 2023). Episodes do not record their step limit: it is taken to be the length of the longest
episode of the level.

**Lost episodes** are tasks that were solved before training and fail after it. How they fail is counted, not tested.

**Multiple testing.** Holm's (1979) correction over all changes tested, on every domain, keeps the chance of even one
false statement at 5 %. Intervals are the plain 95 % ones. Success is not among the changes: the tax covers it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from gentax.core import Episode, Outcome, Task, UsageError
from gentax.core.results import Record, Tabular
from gentax.metrics import statistics
from gentax.metrics.episode_scores import check_errors, task_success
from gentax.metrics.statistics import LEVEL, Estimate, difference
from gentax.metrics.statistics.intervals import TaskRatio
from gentax.metrics.verdict import number, signed

ROUNDS = 3  # times that a loop must have gone round at the end of an episode
PERIOD = 4  # actions of a round, at most
LAST, FEWEST = 4, 3  # giving up shows in the last 1/4 of an episode, and in no fewer actions than 3


@dataclass(frozen=True, slots=True)
class AnnotatedEpisode:
    """An episode with what was made out of each of its actions."""

    episode: Episode
    cut_off: bool  # it failed at the step where episodes of its level are cut off
    repeated: tuple[bool, ...]  # the action before, though that one was refused or changed nothing
    redone: tuple[bool, ...]  # done before in the same state; holds all that is repeated
    back: tuple[bool, ...]  # accepted, and led to an observation seen before in the episode
    loop: bool  # the last actions went round and round

    @property
    def unreadable(self) -> int:
        """How many replies were over and held no action."""
        return sum(not step.action and not step.truncated for step in self.episode.steps)

    @property
    def gave_up(self) -> bool:
        """Whether it ran out of steps and nothing in its last quarter could have helped."""
        steps = self.episode.steps
        last = max(FEWEST, -(-len(steps) // LAST))
        if not self.cut_off or len(steps) < last:
            return False
        return all(again or not step.valid for step, again in zip(steps[-last:], self.redone[-last:], strict=True))


def annotate(episode: Episode, horizon: int) -> AnnotatedEpisode:
    """Annotate an episode of a level whose episodes are cut off after `horizon` steps."""
    steps = episode.steps
    state = steps[0].observation if steps else ""
    seen, done = {state}, list[tuple[str, str]]()
    repeated, redone, back = list[bool](), list[bool](), list[bool]()
    unchanged = False
    for n, step in enumerate(steps):
        repeated.append(unchanged and step.action == steps[n - 1].action)
        redone.append((state, step.action) in done)
        done.append((state, step.action))
        after = steps[n + 1].observation if n + 1 < len(steps) else episode.final
        back.append(step.valid and after in seen)
        unchanged = not step.valid or after == state
        if step.valid:
            state = after
            seen.add(state)
    cut_off = not episode.success and len(steps) >= horizon
    return AnnotatedEpisode(episode, cut_off, tuple(repeated), tuple(redone), tuple(back), _loops(done))


def _loops(done: list[tuple[str, str]]) -> bool:
    for period in range(1, PERIOD + 1):
        tail = done[-ROUNDS * period :]
        if len(tail) == ROUNDS * period and tail[period:] == tail[:-period]:
            return True
    return False


@dataclass(frozen=True)
class BehaviourMetric:
    """A ratio of sums over episodes."""

    name: str
    kind: str  # "ends", "actions" or "cost"
    unit: str  # "percent" (a share), "steps" or "tokens"
    title: str  # as a table prints it
    subject: str  # as a sentence says it
    about: str  # one line for a person
    of: Callable[[AnnotatedEpisode], tuple[float | None, float]]  # numerator, None where unknown, and denominator

    @property
    def share(self) -> bool:
        return self.unit == "percent"


# fmt: off
_METRICS = (
    BehaviourMetric("success", "ends", "percent", "success", "successes", "% of episodes that reached the goal",
        lambda a: (a.episode.success, 1)),
    BehaviourMetric("ended_early", "ends", "percent", "ended early",
        "episodes that failed before they were out of steps",
        "% of episodes that failed before they were out of steps: an action had ended them",
        lambda a: (not a.episode.success and not a.cut_off, 1)),
    BehaviourMetric("gave_up", "ends", "percent", "gave up", "episodes that gave up",
        "% of episodes out of steps whose whole last quarter was refused or had been done before in that state",
        lambda a: (a.gave_up, 1)),
    BehaviourMetric("ran_out", "ends", "percent", "ran out of steps", "episodes that ran out of steps still trying",
        "% of episodes out of steps that had not given up", lambda a: (a.cut_off and not a.gave_up, 1)),
    BehaviourMetric("loop", "ends", "percent", "ended in a loop", "episodes that ended in a loop",
        f"% of episodes whose last actions went round {ROUNDS} times, {PERIOD} actions a round at most",
        lambda a: (a.loop, 1)),
    BehaviourMetric("invalid", "actions", "percent", "invalid", "invalid actions",
        "% of actions that the environment refused",
        lambda a: (a.episode.invalid if a.episode.validity_known else None, a.episode.length)),
    BehaviourMetric("unreadable", "actions", "percent", "unreadable", "replies without an action",
        "% of replies that were over and held no action; they are among the invalid",
        lambda a: (a.unreadable, a.episode.length)),
    BehaviourMetric("truncated", "actions", "percent", "truncated", "replies that were cut off",
        "% of replies that were cut off before they were over; they are not among the invalid",
        lambda a: (a.episode.truncated, a.episode.length)),
    BehaviourMetric("repeated", "actions", "percent", "repeated", "actions repeated though nothing had changed",
        "% of actions that were the one before again, which had been refused or had changed nothing",
        lambda a: (sum(a.repeated), a.episode.length)),
    BehaviourMetric("redone", "actions", "percent", "done before", "actions done before in the same state",
        "% of actions that had been done before in the same state (the repeated ones are among them)",
        lambda a: (sum(a.redone), a.episode.length)),
    BehaviourMetric("back", "actions", "percent", "led back", "actions that led back to a state seen before",
        "% of actions that were accepted and led to an observation seen before in the episode",
        lambda a: (sum(a.back), a.episode.length)),
    BehaviourMetric("steps_per_success", "cost", "steps", "steps per success", "steps per success",
        "steps of all episodes, failures too, for each success", lambda a: (a.episode.length, a.episode.success)),
    BehaviourMetric("length_given_success", "cost", "steps", "length of a success", "the length of a success",
        "mean steps of the episodes that succeeded",
        lambda a: (a.episode.length * a.episode.success, a.episode.success)),
    BehaviourMetric("tokens_per_success", "cost", "tokens", "tokens per success", "tokens per success",
        "tokens written in all episodes, failures too, for each success",
        lambda a: (a.episode.written, a.episode.success)),
    BehaviourMetric("tokens_per_step", "cost", "tokens", "tokens per step", "tokens per step",
        "mean tokens of a reply", lambda a: (a.episode.written, a.episode.length)),
)
# fmt: on
MEASURES = {metric.name: metric for metric in _METRICS}


ByTask = dict[Task, list[Episode]]  # the episodes of each task, by sample


def _paired(*policies: Iterable[Episode]) -> dict[str, tuple[list[ByTask], int]]:
    """Return, by domain, each policy's episodes by task, the same tasks in the same order, and how many were left out.

    Raises:
        UsageError: no episodes, an episode that is there twice, tasks or samples that do not pair, fewer than 2 tasks
            of a domain, more of them with an error than `error_free_scores` allows.
    """
    sides = [_by_sample(episodes) for episodes in policies]
    for side in sides[1:]:
        if alone := sorted(set(sides[0]) ^ set(side)):
            (task, sample), of = alone[0], "first" if alone[0] in sides[0] else "second"
            raise UsageError(
                f"tasks must pair: {len(alone)} of {len({*sides[0], *side})} episodes were played by one policy "
                f"alone, such as {task.id} (sample {sample}) by the {of}"
            )
    paired = {}
    for domain in sorted({task.domain for task, _ in sides[0]}):
        keys = sorted(key for key in sides[0] if key[0].domain == domain)
        samples = {task: list(of_task) for task, of_task in groupby(keys, key=itemgetter(0))}
        errors_K = [any(side[key].outcome is Outcome.ERROR for key in of for side in sides) for of in samples.values()]
        check_errors(np.array(errors_K), domain)
        complete = {task: of for (task, of), error in zip(samples.items(), errors_K, strict=True) if not error}
        if len(complete) < 2:
            raise UsageError(f"what was done on {domain} needs episodes of at least 2 tasks, not {len(complete)}")
        by_task = [{task: [side[key] for key in of] for task, of in complete.items()} for side in sides]
        paired[domain] = by_task, sum(errors_K)
    return paired


def _by_sample(episodes: Iterable[Episode]) -> dict[tuple[Task, int], Episode]:
    by_sample: dict[tuple[Task, int], Episode] = {}
    for episode in episodes:
        if by_sample.setdefault((episode.task, episode.sample), episode) is not episode:
            raise UsageError(f"there are two episodes of sample {episode.sample} of {episode.task.id} of one policy")
    if not by_sample:
        raise UsageError("there are no episodes")
    return by_sample


Values = Mapping[str, Estimate | None]  # measure -> estimate; None when it is undefined or not known


@dataclass(frozen=True)
class Behaviour(Tabular, Record):
    """What a policy did on one domain."""

    domain: str
    tasks: int  # that entered
    episodes: int  # that entered
    excluded_tasks: int  # tasks left out because an episode ended in an error
    measures: Values

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in super().to_json().items() if key != "domain"}

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each measure."""
        counts = {"domain": self.domain, "tasks": self.tasks, "episodes": self.episodes}
        return [counts | {"measure": name, "value": one} for name, one in self.measures.items()]


@dataclass(frozen=True)
class BehaviourComparison(Tabular, Record):
    """What two policies did on the same tasks of one domain."""

    before: Behaviour
    after: Behaviour
    change: Values  # after - before; shares in points

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each measure: before, after and the change."""
        before, after = self.before.measures, self.after.measures
        counts = {"domain": self.after.domain, "tasks": self.after.tasks, "episodes": self.after.episodes}
        return [
            counts | {"measure": name, "before": before[name], "after": after[name], "change": self.change[name]}
            for name in before
        ]


def behaviour(episodes: Iterable[Episode]) -> dict[str, Behaviour]:
    """Return what a policy did, by domain.

    Deterministic: the intervals are closed formulae. They cover tasks; samples of a task are no independent evidence.

    Raises:
        UsageError: no episodes, an episode that is there twice, fewer than 2 tasks of a domain, too many errors.
    """
    return {
        domain: _measured(domain, side, left_out, _horizons(_flat(side)))[0]
        for domain, ((side,), left_out) in _paired(episodes).items()
    }


def compare(before: Iterable[Episode], after: Iterable[Episode]) -> dict[str, BehaviourComparison]:
    """Return what two policies did on the same tasks and samples, and the changes, paired by task, by domain.

    Tasks on which an episode of either ended in an error are left out of both.

    Raises:
        UsageError: see `behaviour`; tasks or samples that do not pair.
    """
    compared = {}
    for domain, (sides, left_out) in _paired(before, after).items():
        horizons = _horizons(_flat(*sides))
        (before_of, ratios), (after_of, later) = (_measured(domain, side, left_out, horizons) for side in sides)
        pairs = {name: (ratios[name], later[name]) for name in MEASURES}
        changes = {name: None if a is None or b is None else a.change(b) for name, (a, b) in pairs.items()}
        success_K, later_K = (task_success(_flat(side), side) for side in sides)
        changes["success"] = difference(success_K, later_K)  # as the tax has it
        compared[domain] = BehaviourComparison(before_of, after_of, changes)
    return compared


def _measured(
    domain: str, side: ByTask, left_out: int, horizons: Mapping[str, int]
) -> tuple[Behaviour, dict[str, TaskRatio | None]]:
    """Return the behaviour of one policy, and its measures as ratios over tasks; None where episodes do not say."""
    annotated = [[annotate(e, horizons[task.level]) for e in many] for task, many in side.items()]
    ratios = {name: _ratio(annotated, metric) for name, metric in MEASURES.items()}
    values = {name: None if ratio is None else ratio.estimate() for name, ratio in ratios.items()}
    return Behaviour(domain, len(side), len(_flat(side)), left_out, values), ratios


def _flat(*sides: ByTask) -> list[Episode]:
    return [episode for side in sides for of_task in side.values() for episode in of_task]


def _horizons(episodes: Iterable[Episode]) -> dict[str, int]:
    """Return the longest episode of each level: where its episodes are cut off, as far as they tell."""
    longest: dict[str, int] = {}
    for episode in episodes:
        longest[episode.task.level] = max(longest.get(episode.task.level, 0), episode.length)
    return longest


def _ratio(annotated: list[list[AnnotatedEpisode]], metric: BehaviourMetric) -> TaskRatio | None:
    pairs = [[metric.of(episode) for episode in of_task] for of_task in annotated]
    if any(numerator is None for of_task in pairs for numerator, _ in of_task):
        return None
    numerator, denominator = np.array([np.sum(np.array(of_task, float), axis=0) for of_task in pairs]).T
    return TaskRatio(numerator, denominator, unit=metric.unit)


Key = tuple[str, str]  # domain, measure
ENDS = ("ended_early", "gave_up", "ran_out")  # of episodes that fail


def holm(compared: Mapping[str, BehaviourComparison]) -> dict[Key, float]:
    """Return the p-value of each change, corrected for testing all of them (Holm 1979), the smallest first.

    A change whose interval has no width (see `TaskRatio.estimate`) is not tested.
    """
    plain = {
        (domain, name): value.p_value()
        for domain, comparison in compared.items()
        for name, value in comparison.change.items()
        if value is not None and name != "success" and value.low < value.high
    }
    return statistics.holm({key: plain[key] for key in sorted(plain, key=lambda key: (plain[key], key))})


def sentences(compared: Mapping[str, BehaviourComparison], most: int = 3) -> list[str]:
    """Say at most `most` changes that are significant after Holm's correction, the largest first.

    One of each kind a domain, and how many were tested.
    """
    corrected = holm(compared)
    significant = [key for key, p in corrected.items() if p < 1 - LEVEL]
    significant.sort(key=lambda key: -_size(compared[key[0]], key[1]))
    largest: dict[tuple[str, str], Key] = {}
    for domain, name in significant:
        largest.setdefault((domain, MEASURES[name].kind), (domain, name))
    lines = [_change_sentence(compared[domain], name) for domain, name in list(largest.values())[:most]]
    tested = f"of {len(corrected)} changes tested" if len(corrected) != 1 else "of 1 change tested"
    if not significant:
        return [f"No change of behaviour is significant, {tested} (Holm's correction)."]
    verb = "is" if len(significant) == 1 else "are"
    return [*lines, f"{len(significant)} {tested} {verb} significant (Holm's correction)."]


def end_sentence(measured: Behaviour) -> str:
    """Say how often a policy succeeds on a domain, and how it fails most often."""
    values = {name: value.value for name, value in measured.measures.items() if value is not None}
    line = f"On {measured.domain}, {number(values['success'], 0)} % of {measured.episodes} episodes succeed"
    worst = max(ENDS, key=lambda name: values[name])
    if values[worst] == 0:
        return f"{line}."
    return f"{line}; most failures are {MEASURES[worst].subject} ({number(values[worst], 0)} % of all)."


def _size(comparison: BehaviourComparison, name: str) -> float:
    """Return how large a change is: points of a share, percent of what a cost was before."""
    change, before = comparison.change[name], comparison.before.measures[name]
    assert change is not None
    assert before is not None
    if MEASURES[name].share or not before.value:
        return abs(change.value)
    return 100 * abs(change.value / before.value)


def _change_sentence(comparison: BehaviourComparison, name: str) -> str:
    metric, change = MEASURES[name], comparison.change[name]
    assert change is not None  # the caller asks for changes that there are
    values = [side.measures[name] for side in (comparison.before, comparison.after)]
    before, after = (number(value.value) for value in values if value is not None)
    unit, moved = (" %", "points") if metric.share else (f" {metric.unit}", metric.unit)
    return (
        f"On {comparison.before.domain}, {metric.subject} went from {before} to {after}{unit}: "
        f"{signed(change.value)} {moved} (95 % interval {signed(change.low)} to {signed(change.high)}, "
        f"over {change.n} tasks)."
    )


# --- the anatomy of lost episodes: solved before training, failed after it. Counts that describe, not estimates. ---

ERROR = "an error"
LOST = "lost"
# Success (before, after) -> what changed, in the order in which a page shows them.
CHANGES = {
    (True, False): LOST,
    (False, True): "gained",
    (True, True): "solved twice",
    (False, False): "failed twice",
}
# How an episode failed: one of the first three is true of each, any of the others may be.
KINDS: dict[str, Callable[[AnnotatedEpisode], bool]] = {
    "ended early": lambda one: not one.cut_off,
    "gave up": lambda one: one.gave_up,
    "ran out of steps": lambda one: one.cut_off and not one.gave_up,
    "ended in a loop": lambda one: one.loop,
    "an invalid action": lambda one: one.episode.invalid > 0,
    "no action read": lambda one: one.unreadable > 0,
    "a reply cut off": lambda one: one.episode.truncated > 0,
}


@dataclass(frozen=True)
class TaskChange:
    """One task before and after training."""

    before: Episode
    after: Episode
    change: str  # of CHANGES, or ERROR
    kinds: tuple[str, ...]  # of KINDS: how it failed after training; empty where it did not


@dataclass(frozen=True)
class LostEpisodes:
    """Counts of lost episodes; those of several seeds are added with `+`."""

    solved: int = 0  # before training
    lost: int = 0  # of these
    kinds: Counter[str] = field(default_factory=Counter)  # of KINDS
    actions: tuple[int, int] = (0, 0)  # in the lost episodes, before and after training
    invalid: tuple[int, int] = (0, 0)  # of these

    def __add__(self, other: LostEpisodes) -> LostEpisodes:
        (a, b), (c, d) = np.add((self.actions, self.invalid), (other.actions, other.invalid)).tolist()
        kinds = self.kinds + other.kinds
        return LostEpisodes(self.solved + other.solved, self.lost + other.lost, kinds, (a, b), (c, d))

    @property
    def invalid_percent(self) -> tuple[float, float] | None:
        """The share of their actions that were invalid, before and after training; None where nothing was lost."""
        if not all(self.actions):
            return None
        before, after = (100 * n / total for n, total in zip(self.invalid, self.actions, strict=True))
        return before, after


def task_changes(before: Sequence[Episode], after: Sequence[Episode]) -> Iterator[TaskChange]:
    """Yield what changed on each task.

    Args:
        before: the episodes before training, of one domain.
        after: those after it, on the same tasks in the same order.

    Raises:
        UsageError: episodes that do not pair.
    """
    horizons = _horizons((*before, *after))
    if len(before) != len(after):
        raise UsageError(f"{len(before)} episodes before training do not pair with {len(after)} after it")
    for was, now in zip(before, after, strict=True):
        if (was.task, was.sample) != (now.task, now.sample):
            raise UsageError(f"a pair is one task, not {was.task.id} and {now.task.id}")
        broke = Outcome.ERROR in (was.outcome, now.outcome)
        kinds: tuple[str, ...] = ()
        if now.outcome is Outcome.FAILURE:
            annotated = annotate(now, horizons[now.task.level])
            kinds = tuple(name for name, holds in KINDS.items() if holds(annotated))
        yield TaskChange(was, now, ERROR if broke else CHANGES[was.success, now.success], kinds)


def lost_episodes(changes: Iterable[TaskChange]) -> LostEpisodes:
    """Count what `task_changes` found. Tasks with an error are left out."""
    known = [one for one in changes if one.change != ERROR]
    lost = [one for one in known if one.change == LOST]
    kinds = Counter(kind for one in lost for kind in one.kinds)
    a, b = (sum(getattr(one, when).length for one in lost) for when in ("before", "after"))
    c, d = (sum(getattr(one, when).invalid for one in lost) for when in ("before", "after"))
    return LostEpisodes(sum(one.before.success for one in known), len(lost), kinds, (a, b), (c, d))

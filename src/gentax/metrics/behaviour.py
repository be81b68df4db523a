"""Behaviour of a policy in its episodes: invalid and repeated actions, loops, giving up, the cost of a success.

`behaviour` measures the episodes of one policy, `compare` those of two policies on the same tasks, and `sentences`
names the largest significant changes.

**State.** A state is known by its text: the observation after the last accepted action, or the first observation. A
refused action leaves the agent where it was, whatever the refusal says. Under partial observability two states may read
alike, and distractors make one state read as several, so compare policies that played in the same way, not domains.

**No progress.** A deterministic environment answers the same action in the same state in the same way, so repeating an
action there brings nothing. `redone` counts that, and giving up is defined by it. Reflexion (Shinn et al. 2023, arXiv
2303.11366) detects a stuck agent by the same sign; a loop here has repeated three times.

**Outcomes.** Every episode has one of four: success, ended early, gave up, ran out, after the finish reasons of
AgentBench (Liu et al. 2023, arXiv 2308.03688). Episodes do not record their step limit: it is taken to be the length of
the longest episode of the level.

**Multiple testing.** Holm's (1979) correction over all changes tested, on every domain, keeps the chance of even one
false statement at 5 %. Intervals are the plain 95 % ones. Success is not among the changes: the tax covers it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gentax.core import Episode, Task, UsageError
from gentax.metrics import statistics
from gentax.metrics.episode_scores import drop_error_tasks, task_success
from gentax.metrics.statistics import LEVEL, Estimate, difference
from gentax.metrics.statistics.paired_ratios import Ratio, change, estimate, p_value
from gentax.metrics.verdict import number, signed

ROUNDS = 3  # times that a loop must have gone round at the end of an episode
PERIOD = 4  # actions of a round, at most
LAST, FEWEST = 4, 3  # giving up shows in the last 1/4 of an episode, and in no fewer actions than 3

Pair = tuple[float, float]  # what an episode adds to the numerator and to the denominator


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
    def gave_up(self) -> bool:
        """Whether it ran out of steps and nothing in its last quarter could have helped."""
        steps = self.episode.steps
        last = max(FEWEST, -(-len(steps) // LAST))
        if not self.cut_off or len(steps) < last:
            return False
        return all(again or not step.valid for step, again in zip(steps[-last:], self.redone[-last:], strict=True))


def read(episode: Episode, horizon: int) -> AnnotatedEpisode:
    """Read an episode of a level whose episodes are cut off after `horizon` steps."""
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
    title: str  # as a table prints it
    about: str  # one line for a person
    kind: str  # "ends", "actions" or "cost"
    unit: str  # "percent" (a share), "steps" or "tokens"
    of: Callable[[AnnotatedEpisode], Pair | None]  # None when the episode does not say

    @property
    def share(self) -> bool:
        return self.unit == "percent"


def _episodes(name: str, title: str, about: str, holds: Callable[[AnnotatedEpisode], bool]) -> BehaviourMetric:
    return BehaviourMetric(name, title, about, "ends", "percent", lambda one: (float(holds(one)), 1.0))


def _actions(name: str, title: str, about: str, count: Callable[[AnnotatedEpisode], int]) -> BehaviourMetric:
    return BehaviourMetric(name, title, about, "actions", "percent", lambda one: (count(one), one.episode.length))


def _written(one: AnnotatedEpisode, bottom: float) -> Pair | None:
    written = one.episode.written
    return None if written is None else (written, bottom)


def _failed(one: AnnotatedEpisode) -> bool:
    return not one.episode.success


MEASURES = {
    measure.name: measure
    for measure in (
        _episodes("success", "success", "% of episodes that reached the goal", lambda one: one.episode.success),
        _episodes(
            "ended_early",
            "ended early",
            "% of episodes that failed before they were out of steps: an action had ended them",
            lambda one: _failed(one) and not one.cut_off,
        ),
        _episodes(
            "gave_up",
            "gave up",
            "% of episodes out of steps whose whole last quarter was refused or had been done before in that state",
            lambda one: one.gave_up,
        ),
        _episodes(
            "ran_out",
            "ran out of steps",
            "% of episodes out of steps that had not given up",
            lambda one: one.cut_off and not one.gave_up,
        ),
        _episodes(
            "loop",
            "ended in a loop",
            f"% of episodes whose last actions went round {ROUNDS} times, {PERIOD} actions a round at most",
            lambda one: one.loop,
        ),
        _actions("invalid", "invalid", "% of actions that the environment refused", lambda one: one.episode.invalid),
        _actions(
            "unreadable",
            "unreadable",
            "% of replies that were over and held no action; they are among the invalid",
            lambda one: sum(not step.action and not step.truncated for step in one.episode.steps),
        ),
        _actions(
            "truncated",
            "truncated",
            "% of replies that were cut off before they were over; they are not among the invalid",
            lambda one: one.episode.truncated,
        ),
        _actions(
            "repeated",
            "repeated",
            "% of actions that were the one before again, which had been refused or had changed nothing",
            lambda one: sum(one.repeated),
        ),
        _actions(
            "redone",
            "done before",
            "% of actions that had been done before in the same state (the repeated ones are among them)",
            lambda one: sum(one.redone),
        ),
        _actions(
            "back",
            "led back",
            "% of actions that were accepted and led to an observation seen before in the episode",
            lambda one: sum(one.back),
        ),
        BehaviourMetric(
            "steps_per_success",
            "steps per success",
            "steps of all episodes, failures too, for each success",
            "cost",
            "steps",
            lambda one: (one.episode.length, float(one.episode.success)),
        ),
        BehaviourMetric(
            "length_given_success",
            "length of a success",
            "mean steps of the episodes that succeeded",
            "cost",
            "steps",
            lambda one: (one.episode.length * one.episode.success, float(one.episode.success)),
        ),
        BehaviourMetric(
            "tokens_per_success",
            "tokens per success",
            "tokens written in all episodes, failures too, for each success",
            "cost",
            "tokens",
            lambda one: _written(one, float(one.episode.success)),
        ),
        BehaviourMetric(
            "tokens_per_step",
            "tokens per step",
            "mean tokens of a reply",
            "cost",
            "tokens",
            lambda one: _written(one, one.episode.length),
        ),
    )
}


By = dict[Task, list[Episode]]  # the episodes of each task, by sample


def by_domain(*policies: Iterable[Episode]) -> dict[str, tuple[list[By], int]]:
    """Return, by domain, each policy's episodes by task, the same tasks in the same order, and how many were left out.

    Raises:
        UsageError: no episodes, an episode that is there twice, tasks or samples that do not pair, fewer than 2 tasks
            of a domain, more of them with an error than `drop_error_tasks` allows.
    """
    sides = [_by_key(episodes) for episodes in policies]
    for other in sides[1:]:
        alone = sorted(set(sides[0]) ^ set(other))
        if alone:
            (task, sample), of = alone[0], "first" if alone[0] in sides[0] else "second"
            raise UsageError(
                f"tasks must pair: {len(alone)} of {len({*sides[0], *other})} episodes were played by one policy "
                f"alone, such as {task.id} (sample {sample}) by the {of}"
            )
    found = {}
    for domain in sorted({task.domain for task, _ in sides[0]}):
        tasks = sorted({task for task, _ in sides[0] if task.domain == domain})
        whole = [_by_task(side, tasks) for side in sides]
        scores = [{domain: task_success(flat(one), tasks)} for one in whole]
        _, left_out = drop_error_tasks(scores)  # refuses where there are too many
        broken_K = np.isnan(np.array([score[domain] for score in scores])).any(axis=0)
        kept = [task for task, broken in zip(tasks, broken_K, strict=True) if not broken]
        if len(kept) < 2:
            raise UsageError(f"what was done on {domain} needs episodes of at least 2 tasks, not {len(kept)}")
        found[domain] = [{task: one[task] for task in kept} for one in whole], left_out[domain]
    return found


def flat(side: By) -> list[Episode]:
    """Return all episodes, task by task."""
    return [episode for of_task in side.values() for episode in of_task]


def _by_key(episodes: Iterable[Episode]) -> dict[tuple[Task, int], Episode]:
    found: dict[tuple[Task, int], Episode] = {}
    for episode in episodes:
        if found.setdefault((episode.task, episode.sample), episode) is not episode:
            raise UsageError(f"there are two episodes of sample {episode.sample} of {episode.task.id} of one policy")
    if not found:
        raise UsageError("there are no episodes")
    return found


def _by_task(side: dict[tuple[Task, int], Episode], tasks: list[Task]) -> By:
    by: By = {task: [] for task in tasks}
    for task, sample in sorted(side):
        if task in by:
            by[task].append(side[task, sample])
    return by


Values = Mapping[str, Estimate | None]  # measure -> estimate; None when it is undefined or not known


@dataclass(frozen=True)
class Behaviour:
    """What a policy did on one domain."""

    domain: str
    tasks: int  # that entered
    episodes: int  # that entered
    excluded_tasks: int  # tasks left out because an episode ended in an error
    values: Values

    def to_json(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("tasks", "episodes", "excluded_tasks")}
        return {**counts, "measures": _plain(self.values)}


@dataclass(frozen=True)
class Comparison:
    """What two policies did on the same tasks of one domain."""

    before: Behaviour
    after: Behaviour
    change: Values  # after - before; shares in points

    def to_json(self) -> dict[str, Any]:
        return {"before": self.before.to_json(), "after": self.after.to_json(), "change": _plain(self.change)}


def behaviour(episodes: Iterable[Episode]) -> dict[str, Behaviour]:
    """Return what a policy did, by domain.

    Deterministic: the intervals are closed formulae. They cover tasks; samples of a task are no independent evidence.

    Raises:
        UsageError: no episodes, an episode that is there twice, fewer than 2 tasks of a domain, too many errors.
    """
    found = {}
    for domain, ((side,), left_out) in by_domain(episodes).items():
        found[domain] = Behaviour(domain, *_counts(side), left_out, _estimates(_ratios(side, _horizons(side))))
    return found


def compare(before: Iterable[Episode], after: Iterable[Episode]) -> dict[str, Comparison]:
    """Return what two policies did on the same tasks and samples, and the changes, paired by task, by domain.

    Tasks on which an episode of either ended in an error are left out of both.

    Raises:
        UsageError: see `behaviour`; tasks or samples that do not pair.
    """
    found = {}
    for domain, (sides, left_out) in by_domain(before, after).items():
        horizons = _horizons(*sides)
        ratios = [_ratios(side, horizons) for side in sides]
        was, now = (
            Behaviour(domain, *_counts(side), left_out, _estimates(of_side))
            for side, of_side in zip(sides, ratios, strict=True)
        )
        changes = {}
        for name in MEASURES:
            first, second = (of_side[name] for of_side in ratios)
            changes[name] = None if first is None or second is None else change(first, second)
        first_K, second_K = (task_success(flat(side), side) for side in sides)
        changes["success"] = difference(first_K, second_K)  # as the tax has it
        found[domain] = Comparison(was, now, changes)
    return found


def _horizons(*sides: By) -> dict[str, int]:
    """Return the longest episode of each level: where its episodes are cut off, as far as they tell."""
    longest: dict[str, int] = {}
    for episode in (episode for side in sides for episode in flat(side)):
        longest[episode.task.level] = max(longest.get(episode.task.level, 0), episode.length)
    return longest


def _ratios(side: By, horizons: dict[str, int]) -> dict[str, Ratio | None]:
    reads = [[read(e, horizons[task.level]) for e in many] for task, many in side.items()]
    return {name: _ratio(reads, measure) for name, measure in MEASURES.items()}


def _ratio(reads: list[list[AnnotatedEpisode]], measure: BehaviourMetric) -> Ratio | None:
    """Return the sums of each task; None when an episode does not say."""
    sums = []
    for of_task in reads:
        pairs = [pair for one in of_task if (pair := measure.of(one)) is not None]
        if len(pairs) < len(of_task):
            return None
        sums.append(np.sum(pairs, axis=0))
    numerator, denominator = np.array(sums, float).T
    return Ratio(numerator, denominator, unit=measure.unit)


def _estimates(ratios: dict[str, Ratio | None]) -> Values:
    return {name: None if ratio is None else estimate(ratio) for name, ratio in ratios.items()}


def _counts(side: By) -> tuple[int, int]:
    return len(side), sum(map(len, side.values()))


def _plain(values: Values) -> dict[str, Any]:
    return {name: None if value is None else value.to_json() for name, value in values.items()}


Key = tuple[str, str]  # domain, measure
ENDS = ("ended_early", "gave_up", "ran_out")  # of episodes that fail


def holm(compared: Mapping[str, Comparison]) -> dict[Key, float]:
    """Return the p-value of each change, corrected for testing all of them (Holm 1979), the smallest first.

    A change whose interval has no width (see `ratios.estimate`) is not tested.
    """
    plain = {
        (domain, name): p_value(value)
        for domain, comparison in compared.items()
        for name, value in comparison.change.items()
        if value is not None and name != "success" and value.low < value.high
    }
    return statistics.holm({key: plain[key] for key in sorted(plain, key=lambda key: (plain[key], key))})


def sentences(compared: Mapping[str, Comparison], most: int = 3) -> list[str]:
    """Say at most `most` changes that are significant after Holm's correction, the largest first.

    One of each kind a domain, and how many were tested.
    """
    corrected = holm(compared)
    standing = [key for key, p in corrected.items() if p < 1 - LEVEL]
    standing.sort(key=lambda key: -_size(compared[key[0]], key[1]))
    told: dict[tuple[str, str], Key] = {}
    for domain, name in standing:
        told.setdefault((domain, MEASURES[name].kind), (domain, name))
    chosen = list(told.values())[:most]
    said = [_change(compared[domain], name) for domain, name in chosen]
    tested = f"of {len(corrected)} changes tested" if len(corrected) != 1 else "of 1 change tested"
    if not standing:
        said.append(f"No change of behaviour is significant, {tested} (Holm's correction).")
    else:
        verb = "is" if len(standing) == 1 else "are"
        said.append(f"{len(standing)} {tested} {verb} significant (Holm's correction).")
    return said


def end_sentence(one: Behaviour) -> str:
    """Say how often a policy succeeds on a domain, and how it fails most often."""
    values = {name: value.value for name, value in one.values.items() if value is not None}
    said = f"On {one.domain}, {number(values['success'], 0)} % of {one.episodes} episodes succeed"
    worst = max(ENDS, key=lambda name: values[name])
    if values[worst] == 0:
        return f"{said}."
    return f"{said}; most failures are {_SUBJECT[worst]} ({number(values[worst], 0)} % of all)."


def _size(comparison: Comparison, name: str) -> float:
    """Return how large a change is: points of a share, percent of what a cost was before."""
    change, before = comparison.change[name], comparison.before.values[name]
    assert change is not None
    assert before is not None
    if MEASURES[name].share or not before.value:
        return abs(change.value)
    return 100 * abs(change.value / before.value)


def _change(comparison: Comparison, name: str) -> str:
    measure, change = MEASURES[name], comparison.change[name]
    assert change is not None  # the caller asks for changes that there are
    values = [side.values[name] for side in (comparison.before, comparison.after)]
    before, after = (number(value.value) for value in values if value is not None)
    unit = " %" if measure.share else f" {measure.unit}"
    moved = "points" if measure.share else measure.unit
    return (
        f"On {comparison.before.domain}, {_SUBJECT[name]} went from {before} to {after}{unit}: "
        f"{signed(change.value)} {moved} ({_limits(change, 1, signs=True)}, over {change.n} tasks)."
    )


def _limits(value: Estimate, digits: int, signs: bool = False) -> str:
    write = signed if signs else number
    return f"95 % interval {write(value.low, digits)} to {write(value.high, digits)}"


_SUBJECT = {
    "ended_early": "episodes that failed before they were out of steps",
    "gave_up": "episodes that gave up",
    "ran_out": "episodes that ran out of steps still trying",
    "loop": "episodes that ended in a loop",
    "invalid": "invalid actions",
    "unreadable": "replies without an action",
    "truncated": "replies that were cut off",
    "repeated": "actions repeated though nothing had changed",
    "redone": "actions done before in the same state",
    "back": "actions that led back to a state seen before",
    "steps_per_success": "steps per success",
    "length_given_success": "the length of a success",
    "tokens_per_success": "tokens per success",
    "tokens_per_step": "tokens per step",
}

"""What is counted in an episode: which actions were refused or done again, how the episode ended, what it cost.

**State.** A state is known by its text: the observation that the last accepted action led to, or the first one. A
refused action leaves the agent where it was, whatever the refusal says ("Nothing happens." is no place). Where an
observation shows only part of the world, two states may read alike; where a distractor adds text, one state reads as
several. So numbers are compared between policies that played in the same way, and not between domains.

**No progress.** An environment that is deterministic answers the same action in the same state in the same way, so
where the text tells all of the state an action done before brings nothing. That is what `redone` counts and what
giving up is made of. Reflexion (Shinn et al. 2023, arXiv 2303.11366) takes an agent for stuck by the same sign, the
same action with the same answer for more than three cycles; a loop here has gone round three times.

**Ends.** Success, ended early, gave up and ran out are one of four for every episode, as the finish reasons of
AgentBench are (Liu et al. 2023, arXiv 2308.03688), of which `invalid` and `unreadable` are the two at the level of
actions. Episodes do not say at which step they would have been cut off: it is taken to be the length of the longest
episode of that level.

Every measure is a ratio of two sums over episodes, so one pair of formulae serves all of them (see `ratios`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gentax.core import Episode

ROUNDS = 3  # times that a loop must have gone round at the end of an episode
PERIOD = 4  # actions of a round, at most
LAST, FEWEST = 4, 3  # giving up shows in the last 1/4 of an episode, and in no fewer actions than 3

Pair = tuple[float, float]  # what an episode adds to the numerator and to the denominator


@dataclass(frozen=True, slots=True)
class Read:
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


def read(episode: Episode, horizon: int) -> Read:
    """Read an episode of a level whose episodes are cut off after `horizon` steps."""
    steps = episode.steps
    state = steps[0].observation if steps else ""
    seen, done = {state}, list[tuple[str, str]]()
    repeated, redone, back = list[bool](), list[bool](), list[bool]()
    unchanged = False
    for number, step in enumerate(steps):
        repeated.append(unchanged and step.action == steps[number - 1].action)
        redone.append((state, step.action) in done)
        done.append((state, step.action))
        after = steps[number + 1].observation if number + 1 < len(steps) else episode.final
        back.append(step.valid and after in seen)
        unchanged = not step.valid or after == state
        if step.valid:
            state = after
            seen.add(state)
    cut_off = not episode.success and len(steps) >= horizon
    return Read(episode, cut_off, tuple(repeated), tuple(redone), tuple(back), _loops(done))


def _loops(done: list[tuple[str, str]]) -> bool:
    for period in range(1, PERIOD + 1):
        tail = done[-ROUNDS * period :]
        if len(tail) == ROUNDS * period and tail[period:] == tail[:-period]:
            return True
    return False


@dataclass(frozen=True)
class Measure:
    """A ratio of sums over episodes."""

    name: str
    title: str  # as a table prints it
    about: str  # one line for a person
    kind: str  # "ends", "actions" or "cost"
    unit: str  # "percent" (a share), "steps" or "tokens"
    of: Callable[[Read], Pair | None]  # None when the episode does not say

    @property
    def share(self) -> bool:
        return self.unit == "percent"


def _episodes(name: str, title: str, about: str, holds: Callable[[Read], bool]) -> Measure:
    return Measure(name, title, about, "ends", "percent", lambda one: (float(holds(one)), 1.0))


def _actions(name: str, title: str, about: str, count: Callable[[Read], int]) -> Measure:
    return Measure(name, title, about, "actions", "percent", lambda one: (count(one), one.episode.length))


def _written(one: Read, bottom: float) -> Pair | None:
    written = one.episode.written
    return None if written is None else (written, bottom)


def _failed(one: Read) -> bool:
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
        Measure(
            "steps_per_success",
            "steps per success",
            "steps of all episodes, failures too, for each success",
            "cost",
            "steps",
            lambda one: (one.episode.length, float(one.episode.success)),
        ),
        Measure(
            "length_given_success",
            "length of a success",
            "mean steps of the episodes that succeeded",
            "cost",
            "steps",
            lambda one: (one.episode.length * one.episode.success, float(one.episode.success)),
        ),
        Measure(
            "tokens_per_success",
            "tokens per success",
            "tokens written in all episodes, failures too, for each success",
            "cost",
            "tokens",
            lambda one: _written(one, float(one.episode.success)),
        ),
        Measure(
            "tokens_per_step",
            "tokens per step",
            "mean tokens of a reply",
            "cost",
            "tokens",
            lambda one: _written(one, one.episode.length),
        ),
    )
}

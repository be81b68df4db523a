"""The splits share no task.

Two tasks are the same when their fingerprints are (see `TextEnv.fingerprint`: goal and first observation, or a whole
start where a domain gives it), the expert's episodes are, text by text, and some walks by chance are too. The latter
two are looked at because the first view of a world may be that of another. Left out: tasks that differ in words alone.
"""

from __future__ import annotations

import random
from collections import defaultdict

from gentax.core import Move, Task, TextEnv
from gentax.measure.check.bench import NONSENSE, WANDER, Bench, Chooser, expert
from gentax.measure.check.result import Failed, NotApplicable

WALKS = 8  # episodes by chance that are compared before two tasks are called the same


def disjoint_splits(bench: Bench) -> str:
    """No task of one split is in another."""
    splits = bench.env.domain.splits
    if len(splits) < 2:
        raise NotApplicable("it has one split only")
    listed = [bench.env.tasks(split, min(bench.effort.starts, bench.env.size(split))) for split in splits]
    asked, seen = sum(map(len, listed)), defaultdict(list)  # fingerprint -> its tasks
    longest = max(map(len, listed))
    in_turn = (tasks[n] for n in range(longest) for tasks in listed if n < len(tasks))
    done = 0
    for task in bench.in_time(in_turn, least=2 * len(splits)):
        bench.start(bench.env, task)
        seen[bench.env.unwrapped.fingerprint()].append(task)
        done += 1
    found = f"{bench.of(done, asked, 'tasks')} of {len(splits)} splits, {len(seen)} of them different, none in two"
    alike = [(key, task) for key, tasks in seen.items() if len({t.split for t in tasks}) > 1 for task in tasks]
    if not alike:
        return found
    bench.extend()  # else the counting would leave none
    looked, gone = 0, {}  # fingerprint and episode -> the first task with them
    for key, task in bench.in_time(alike, least=4):
        first = gone.setdefault((key, _way(bench, task, _known(bench))), task)
        if first.split != task.split and _same_world(bench, first, task):
            bench.where = ""
            raise Failed(f"{first.id} and {task.id} are the same task: they begin alike and go alike")
        looked += 1
    return f"{found}; {len(alike)} begin like one of another split, and the {looked} looked at go other ways"


def _known(bench: Bench) -> Chooser:
    """Return who knows the way; by chance, where nobody does."""
    return expert if bench.has_expert else _chances(0)


def _same_world(bench: Bench, one: Task, other: Task) -> bool:
    """Return whether two tasks whose experts go alike also look alike where chance leads: off the expert's way."""
    return all(_way(bench, one, _chances(n)) == _way(bench, other, _chances(n)) for n in range(WALKS))


def _way(bench: Bench, task: Task, choose: Chooser) -> tuple[str, ...]:
    """Return what is done and read in a task."""
    played = bench.play(bench.env, task, choose, None if choose is expert else WANDER)
    return played.goal, played.first, *(text for turn in played.turns for text in (turn.action, turn.observation))


def _chances(seed: int) -> Chooser:
    """Return a chooser that takes the same chances in every task where the same is offered."""
    rng = random.Random(seed)

    def choose(env: TextEnv) -> Move:
        listed = env.admissible()
        return Move(rng.choice(listed)) if listed else env.expert() or Move(NONSENSE)

    return choose

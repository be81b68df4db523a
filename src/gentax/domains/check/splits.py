"""The splits share nothing: neither what their tasks are made of, as the environment says it, nor a task.

Contents (`TextEnv.content`) are compared for thousands of tasks. Whether that is all can only be seen by playing: two
tasks are the same when their fingerprints are (see `TextEnv.fingerprint`: goal and first observation, or a whole
start where a domain gives it), the expert's episodes are, text by text, and some walks by chance are too. The latter
two are looked at because the first view of a world may be that of another. Left out: tasks that differ in words alone.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator

from gentax.core import ExpertAction, Task, TextEnv
from gentax.domains.check.bench import NONSENSE, WANDER, Bench, Chooser, expert
from gentax.domains.check.result import Failed, NotApplicable

WALKS = 8  # episodes by chance that are compared before two tasks are called the same


def shared_contents(bench: Bench) -> str:
    """No content of one split is in another, going by what the environment says its tasks are made of."""
    env, splits = bench.env.unwrapped, bench.env.domain.splits
    if env.content_of(bench.tasks(1)[0]) is None:
        raise NotApplicable(
            "it does not say what its tasks are made of (`content`): nobody can claim that its test tasks are new, and "
            "intervals count each task as independent of the others"
        )
    if len(splits) < 2:
        raise NotApplicable("it has one split only")
    first: dict[str, Task] = {}
    counts = dict.fromkeys(splits, 0)
    in_turn, asked = _in_turn(bench)
    done = 0
    for task in bench.in_time(in_turn, least=2 * len(splits)):
        bench.where = f"task {task.id}"
        content = env.content_of(task)
        if content is None:
            raise Failed("it says nothing of what this task is made of, and of others it does")
        other = first.setdefault(content, task)
        if other.split != task.split:
            bench.where = ""
            raise Failed(f"{other.id} and {task.id} are made of the same, and are in different splits")
        counts[task.split] += other is task
        done += 1
    found = ", ".join(f"{count} {split}" for split, count in counts.items())
    return f"{bench.of(done, asked, 'tasks')}: contents {found}; none is in two splits"


def disjoint_splits(bench: Bench) -> str:
    """No task of one split is in another."""
    splits = bench.env.domain.splits
    if len(splits) < 2:
        raise NotApplicable("it has one split only")
    in_turn, asked = _in_turn(bench)
    seen = defaultdict(list)  # fingerprint -> its tasks
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


def _in_turn(bench: Bench) -> tuple[Iterator[Task], int]:
    """Return tasks of all splits in turn, and how many."""
    env = bench.env
    listed = [env.tasks(split, min(bench.effort.starts, env.size(split))) for split in env.domain.splits]
    longest = max(map(len, listed))
    return (tasks[n] for n in range(longest) for tasks in listed if n < len(tasks)), sum(map(len, listed))


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

    def choose(env: TextEnv) -> ExpertAction:
        listed = env.admissible()
        return ExpertAction(rng.choice(listed)) if listed else env.expert() or ExpertAction(NONSENSE)

    return choose

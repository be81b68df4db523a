"""Checks of tasks: the same task is the same episode everywhere, splits share nothing, and the expert wins."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import zip_longest

from gentax.core import ExpertAction, Task, TextEnv
from gentax.domains.check.harness import (
    NONSENSE,
    WANDER,
    Failed,
    Harness,
    NotApplicable,
    Policy,
    Trajectory,
    expert_policy,
)

STARTS = 50  # tasks whose starts are compared within this process
EPISODES = 10  # tasks whose episodes are
ELSEWHERE = 6  # tasks whose starts are compared with another process's
SHORT = 15  # steps of an episode that has no expert
AROUND = 40  # characters of a difference that are shown, before it and after

_OTHER_PROCESS = """\
import json, sys
from gentax.core import Task
from gentax.domains import make
asked = json.load(sys.stdin)
env = make(asked["name"], asked["level"], **asked["settings"])
starts = []
for task in asked["tasks"]:
    observation, info = env.reset(options={"task": Task(*task)})
    starts.append([info["goal"], observation])
env.close()
print("\\n" + json.dumps(starts))
"""


def same_start(bench: Harness) -> str:
    """Each task has one start: in an environment, in it again after another task, and in another environment."""
    other = bench.make()
    tasks = bench.tasks(min(STARTS, bench.effort.tasks))
    done = 0
    for task, between in bench.in_time(zip(tasks, tasks[1:] + tasks[:1], strict=True)):
        first = bench.start(bench.env, task)
        _same("start", first, bench.start(other, task), "in a second environment")
        bench.start(bench.env, between)
        bench.step(bench.env, NONSENSE)
        _same("start", first, bench.start(bench.env, task), "after another task")
        done += 1
    return f"{bench.of(done, len(tasks), 'tasks')} start alike in two environments and after another task"


def same_episode(bench: Harness) -> str:
    """The same actions get the same answers: texts, rewards and ends of whole episodes, played again elsewhere."""
    other = bench.make()
    choose = expert_policy if bench.has_expert else bench.wander
    tasks = bench.tasks(min(EPISODES, bench.effort.tasks))
    done = steps = 0
    for task in bench.in_time(tasks):
        played = bench.play(bench.env, task, choose, None if bench.has_expert else SHORT)
        replay(bench, other, played)
        done, steps = done + 1, steps + len(played.turns)
    what = "episodes of the expert" if bench.has_expert else "episodes without aim"
    return f"{bench.of(done, len(tasks), what)}, {steps} steps, go the same way in a second environment"


def replay(bench: Harness, env: TextEnv, played: Trajectory) -> None:
    """Play an episode's actions again in `env`. Raises Failed where an answer differs."""
    _same("start", (played.goal, played.first), bench.start(env, played.task), "in a second environment")
    for turn in played.turns:
        again = bench.step(env, turn.action)
        for what in ("observation", "reward", "terminated", "truncated"):
            _same(what, getattr(turn, what), getattr(again, what), "when the same actions are played again")
        for what in ("valid", "success"):
            _same(what, turn.info.get(what), again.info.get(what), "when the same actions are played again")


def other_process(bench: Harness) -> str:
    """A fresh process, whose sets and hashes are ordered in another way, starts the same tasks in the same way."""
    tasks = bench.tasks(ELSEWHERE)
    asked = {"name": bench.name, "level": bench.level, "settings": bench.settings}
    try:
        text = json.dumps({**asked, "tasks": [[t.domain, t.level, t.split, t.index] for t in tasks]})
    except TypeError:
        raise NotApplicable("the settings cannot be handed to another process") from None
    run = subprocess.run(
        [sys.executable, "-c", _OTHER_PROCESS],
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if run.returncode:
        said = run.stderr.strip().splitlines() or ["nothing"]
        if "unknown domain" in said[-1]:
            raise NotApplicable("it is registered in this process only")
        raise Failed(f"another process cannot start it: {said[-1]}")
    for task, (goal, observation) in zip(tasks, json.loads(run.stdout.splitlines()[-1]), strict=True):
        _same("start", bench.start(bench.env, task), (goal, observation), "in another process")
    return f"{len(tasks)} tasks start alike in another process"


def task_of(task: Task, env: TextEnv) -> Task:
    """Return the same index of the same split for an environment made with other settings."""
    return Task(env.domain.name, env.level, task.split, task.index)


def _same(what: str, one: object, other: object, where: str) -> None:
    if one != other:
        raise Failed(f"the {what} differs {where}: {' and '.join(_differences(one, other))}")


def _differences(one: object, other: object) -> list[str]:
    """Return two values for a message; of texts the piece where they begin to differ."""
    texts = ["\n".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in (one, other)]
    at = next((n for n, (left, right) in enumerate(zip_longest(*texts)) if left != right), 0)
    return [repr(text[max(0, at - AROUND) : at + AROUND]) for text in texts]


# The splits share nothing: neither what their tasks are made of, as the environment says it, nor a task.
#
# Contents (`TextEnv.content`) are compared for thousands of tasks. Whether that is all can only be seen by playing:
# two tasks are the same when their fingerprints are (see `TextEnv.fingerprint`: goal and first observation, or a
# whole start where a domain gives it), the expert's episodes are, text by text, and some walks by chance are too. The
# latter two are looked at because the first view of a world may be that of another. Left out: tasks that differ in
# words alone.


WALKS = 8  # episodes by chance that are compared before two tasks are called the same


def shared_contents(bench: Harness) -> str:
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


def disjoint_splits(bench: Harness) -> str:
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


def _in_turn(bench: Harness) -> tuple[Iterator[Task], int]:
    """Return tasks of all splits in turn, and how many."""
    env = bench.env
    listed = [env.tasks(split, min(bench.effort.starts, env.size(split))) for split in env.domain.splits]
    longest = max(map(len, listed))
    return (tasks[n] for n in range(longest) for tasks in listed if n < len(tasks)), sum(map(len, listed))


def _known(bench: Harness) -> Policy:
    """Return who knows the way; by chance, where nobody does."""
    return expert_policy if bench.has_expert else _chances(0)


def _same_world(bench: Harness, one: Task, other: Task) -> bool:
    """Return whether two tasks whose experts go alike also look alike where chance leads: off the expert's way."""
    return all(_way(bench, one, _chances(n)) == _way(bench, other, _chances(n)) for n in range(WALKS))


def _way(bench: Harness, task: Task, choose: Policy) -> tuple[str, ...]:
    """Return what is done and read in a task."""
    played = bench.play(bench.env, task, choose, None if choose is expert_policy else WANDER)
    return played.goal, played.first, *(text for turn in played.turns for text in (turn.action, turn.observation))


def _chances(seed: int) -> Policy:
    """Return a chooser that takes the same chances in every task where the same is offered."""
    rng = random.Random(seed)

    def choose(env: TextEnv) -> ExpertAction:
        listed = env.admissible()
        return ExpertAction(rng.choice(listed)) if listed else env.expert() or ExpertAction(NONSENSE)

    return choose


# The expert solves every checked task within the horizon, by moves that the environment accepts.


def expert_wins(bench: Harness) -> str:
    """The expert's episodes end in success; its actions and thoughts are words; every action is accepted."""
    if not bench.has_expert:
        raise NotApplicable("it has no expert")
    tasks = bench.tasks(bench.effort.tasks)
    lengths = []
    for task in bench.in_time(tasks):
        played = bench.play(bench.env, task, expert_policy)
        for number, turn in enumerate(played.turns, 1):
            bench.where = f"task {task.id}, step {number}"
            for what, text in (("action", turn.action), ("thought", turn.thought)):
                if not isinstance(text, str) or not text.strip():
                    raise Failed(f"the expert's {what} is {text!r}, not words")
            if turn.info["valid"] is not True:
                raise Failed(f"the environment refuses the expert's action {turn.action!r}")
        bench.where = f"task {task.id}, step {len(played.turns) + 1}"
        if not played.over:
            raise Failed("the expert has no move and the episode is not over")
        if not played.won:
            how = "the horizon" if played.turns[-1].truncated else "failure"
            raise Failed(f"the expert's episode ends in {how} after {len(played.turns)} steps")
        lengths.append(len(played.turns))
    steps = f"{min(lengths)} to {max(lengths)} steps, horizon {bench.env.horizon}"
    return f"{bench.of(len(lengths), len(tasks), 'tasks')} solved in {steps}"

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
from typing import Any

from gentax.core import ExpertAction, Task, TextEnv
from gentax.domains.check.harness import (
    NONSENSE,
    RANDOM_STEPS,
    CheckFailed,
    Harness,
    NotApplicable,
    Policy,
    Trajectory,
    expert_policy,
)

STARTS = 50  # tasks whose starts are compared within this process
EPISODES = 10  # tasks whose episodes are
OTHER_PROCESS_TASKS = 6  # tasks whose starts are compared with another process's
SHORT = 15  # steps of an episode that has no expert
CONTEXT_CHARS = 40  # characters of a difference that are shown, before it and after

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


def same_start(harness: Harness) -> str:
    """Each task has one start: in an environment, in it again after another task, and in another environment."""
    other = harness.make()
    tasks = harness.tasks(min(STARTS, harness.effort.tasks))
    done = 0
    for task, between in harness.within_budget(zip(tasks, tasks[1:] + tasks[:1], strict=True)):
        first = harness.start(harness.env, task)
        _must_be_equal("start", first, harness.start(other, task), "in a second environment")
        harness.start(harness.env, between)
        harness.step(harness.env, NONSENSE)
        _must_be_equal("start", first, harness.start(harness.env, task), "after another task")
        done += 1
    return f"{harness.count(done, len(tasks), 'tasks')} start alike in two environments and after another task"


def same_episode(harness: Harness) -> str:
    """The same actions get the same answers: texts, rewards and ends of whole episodes, played again elsewhere."""
    other = harness.make()
    policy = expert_policy if harness.has_expert else harness.random_policy
    tasks = harness.tasks(min(EPISODES, harness.effort.tasks))
    done = steps = 0
    for task in harness.within_budget(tasks):
        trajectory = harness.play(harness.env, task, policy, None if harness.has_expert else SHORT)
        replay(harness, other, trajectory)
        done, steps = done + 1, steps + len(trajectory.turns)
    what = "episodes of the expert" if harness.has_expert else "episodes without aim"
    return f"{harness.count(done, len(tasks), what)}, {steps} steps, go the same way in a second environment"


def replay(harness: Harness, env: TextEnv, trajectory: Trajectory) -> None:
    """Play an episode's actions again in `env`. Raises Failed where an answer differs."""
    _must_be_equal(
        "start", (trajectory.goal, trajectory.first), harness.start(env, trajectory.task), "in a second environment"
    )
    for turn in trajectory.turns:
        again = harness.step(env, turn.action)
        for what in ("observation", "reward", "terminated", "truncated"):
            _must_be_equal(what, getattr(turn, what), getattr(again, what), "when the same actions are played again")
        for what in ("valid", "success"):
            _must_be_equal(what, turn.info.get(what), again.info.get(what), "when the same actions are played again")


def other_process(harness: Harness) -> str:
    """A fresh process, whose sets and hashes are ordered in another way, starts the same tasks in the same way."""
    tasks = harness.tasks(OTHER_PROCESS_TASKS)
    requested = {"name": harness.name, "level": harness.level, "settings": harness.settings}
    try:
        text = json.dumps({**requested, "tasks": [[t.domain, t.level, t.split, t.index] for t in tasks]})
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
        stderr_lines = run.stderr.strip().splitlines() or ["nothing"]
        if "unknown domain" in stderr_lines[-1]:
            raise NotApplicable("it is registered in this process only")
        raise CheckFailed(f"another process cannot start it: {stderr_lines[-1]}")
    for task, (goal, observation) in zip(tasks, json.loads(run.stdout.splitlines()[-1]), strict=True):
        _must_be_equal("start", harness.start(harness.env, task), (goal, observation), "in another process")
    return f"{len(tasks)} tasks start alike in another process"


def task_of(task: Task, env: TextEnv) -> Task:
    """Return the same index of the same split for an environment made with other settings."""
    return Task(env.domain.name, env.level, task.split, task.index)


def _must_be_equal(what: str, one: object, other: object, location: str) -> None:
    if one != other:
        raise CheckFailed(f"the {what} differs {location}: {' and '.join(_differences(one, other))}")


def _differences(one: object, other: object) -> list[str]:
    """Return two values for a message; of texts the piece where they begin to differ."""
    texts = ["\n".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in (one, other)]
    at = next((n for n, (left, right) in enumerate(zip_longest(*texts)) if left != right), 0)
    return [repr(text[max(0, at - CONTEXT_CHARS) : at + CONTEXT_CHARS]) for text in texts]


# The splits share nothing: neither what their tasks are made of, as the environment says it, nor a task.
#
# Contents (`TextEnv.content`) are compared for thousands of tasks. Whether that is all can only be seen by playing:
# two tasks are the same when their fingerprints are (see `TextEnv.fingerprint`: goal and first observation, or a
# whole start where a domain gives it), the expert's episodes are, text by text, and some random episodes are too. The
# latter two are looked at because the first view of a world may be that of another. Left out: tasks that differ in
# words alone.


WALKS = 8  # episodes by chance that are compared before two tasks are called the same


def shared_contents(harness: Harness) -> str:
    """No content of one split is in another, going by what the environment says its tasks are made of."""
    env, splits = harness.env.unwrapped, harness.env.domain.splits
    if env.content_of(harness.tasks(1)[0]) is None:
        raise NotApplicable(
            "it does not say what its tasks are made of (`content`): nobody can claim that its test tasks are new, and "
            "intervals count each task as independent of the others"
        )
    if len(splits) < 2:
        raise NotApplicable("it has one split only")
    first: dict[str, Task] = {}
    counts = dict.fromkeys(splits, 0)
    in_turn, requested = _interleaved(harness)
    done = 0
    for task in harness.within_budget(in_turn, least=2 * len(splits)):
        harness.location = f"task {task.id}"
        content = env.content_of(task)
        if content is None:
            raise CheckFailed("it says nothing of what this task is made of, and of others it does")
        other = first.setdefault(content, task)
        if other.split != task.split:
            harness.location = ""
            raise CheckFailed(f"{other.id} and {task.id} are made of the same, and are in different splits")
        counts[task.split] += other is task
        done += 1
    message = ", ".join(f"{count} {split}" for split, count in counts.items())
    return f"{harness.count(done, requested, 'tasks')}: contents {message}; none is in two splits"


def disjoint_splits(harness: Harness) -> str:
    """No task of one split is in another."""
    splits = harness.env.domain.splits
    if len(splits) < 2:
        raise NotApplicable("it has one split only")
    in_turn, requested = _interleaved(harness)
    seen = defaultdict(list)  # fingerprint -> its tasks
    done = 0
    for task in harness.within_budget(in_turn, least=2 * len(splits)):
        harness.start(harness.env, task)
        seen[harness.env.unwrapped.fingerprint()].append(task)
        done += 1
    message = (
        f"{harness.count(done, requested, 'tasks')} of {len(splits)} splits, {len(seen)} of them different, none in two"
    )
    alike = [(key, task) for key, tasks in seen.items() if len({t.split for t in tasks}) > 1 for task in tasks]
    if not alike:
        return message
    harness.extend_time()  # else the counting would leave none
    compared = 0
    first_by_transcript: dict[Any, Task] = {}  # fingerprint and episode -> the first task with them
    for key, task in harness.within_budget(alike, least=4):
        first = first_by_transcript.setdefault((key, _transcript(harness, task, _reference_policy(harness))), task)
        if first.split != task.split and _same_world(harness, first, task):
            harness.location = ""
            raise CheckFailed(f"{first.id} and {task.id} are the same task: they begin alike and go alike")
        compared += 1
    return f"{message}; {len(alike)} begin like one of another split, and the {compared} looked at go other ways"


def _interleaved(harness: Harness) -> tuple[Iterator[Task], int]:
    """Return tasks of all splits in turn, and how many."""
    env = harness.env
    admissible = [env.tasks(split, min(harness.effort.starts, env.size(split))) for split in env.domain.splits]
    longest = max(map(len, admissible))
    return (tasks[n] for n in range(longest) for tasks in admissible if n < len(tasks)), sum(map(len, admissible))


def _reference_policy(harness: Harness) -> Policy:
    """Return who knows the way; by chance, where nobody does."""
    return expert_policy if harness.has_expert else _seeded_random(0)


def _same_world(harness: Harness, one: Task, other: Task) -> bool:
    """Return whether two tasks whose experts go alike also look alike where chance leads: off the expert's way."""
    return all(
        _transcript(harness, one, _seeded_random(n)) == _transcript(harness, other, _seeded_random(n))
        for n in range(WALKS)
    )


def _transcript(harness: Harness, task: Task, policy: Policy) -> tuple[str, ...]:
    """Return what is done and read in a task."""
    trajectory = harness.play(harness.env, task, policy, None if policy is expert_policy else RANDOM_STEPS)
    return (
        trajectory.goal,
        trajectory.first,
        *(text for turn in trajectory.turns for text in (turn.action, turn.observation)),
    )


def _seeded_random(seed: int) -> Policy:
    """Return a chooser that takes the same chances in every task where the same is offered."""
    rng = random.Random(seed)

    def policy(env: TextEnv) -> ExpertAction:
        admissible = env.admissible()
        return ExpertAction(rng.choice(admissible)) if admissible else env.expert() or ExpertAction(NONSENSE)

    return policy


# The expert solves every checked task within the horizon, by moves that the environment accepts.


def expert_wins(harness: Harness) -> str:
    """The expert's episodes end in success; its actions and thoughts are words; every action is accepted."""
    if not harness.has_expert:
        raise NotApplicable("it has no expert")
    tasks = harness.tasks(harness.effort.tasks)
    lengths = []
    for task in harness.within_budget(tasks):
        trajectory = harness.play(harness.env, task, expert_policy)
        for number, turn in enumerate(trajectory.turns, 1):
            harness.location = f"task {task.id}, step {number}"
            for what, text in (("action", turn.action), ("thought", turn.thought)):
                if not isinstance(text, str) or not text.strip():
                    raise CheckFailed(f"the expert's {what} is {text!r}, not words")
            if turn.info["valid"] is not True:
                raise CheckFailed(f"the environment refuses the expert's action {turn.action!r}")
        harness.location = f"task {task.id}, step {len(trajectory.turns) + 1}"
        if not trajectory.over:
            raise CheckFailed("the expert has no move and the episode is not over")
        if not trajectory.won:
            how = "the horizon" if trajectory.turns[-1].truncated else "failure"
            raise CheckFailed(f"the expert's episode ends in {how} after {len(trajectory.turns)} steps")
        lengths.append(len(trajectory.turns))
    steps = f"{min(lengths)} to {max(lengths)} steps, horizon {harness.env.horizon}"
    return f"{harness.count(len(lengths), len(tasks), 'tasks')} solved in {steps}"

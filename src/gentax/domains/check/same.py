"""The same task is the same episode: in one environment, in another, in another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import zip_longest

from gentax.core import Task, TextEnv
from gentax.domains.check.bench import NONSENSE, Bench, Played, expert
from gentax.domains.check.result import Failed, NotApplicable

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


def same_start(bench: Bench) -> str:
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


def same_episode(bench: Bench) -> str:
    """The same actions get the same answers: texts, rewards and ends of whole episodes, played again elsewhere."""
    other = bench.make()
    choose = expert if bench.has_expert else bench.wander
    tasks = bench.tasks(min(EPISODES, bench.effort.tasks))
    done = steps = 0
    for task in bench.in_time(tasks):
        played = bench.play(bench.env, task, choose, None if bench.has_expert else SHORT)
        replay(bench, other, played)
        done, steps = done + 1, steps + len(played.turns)
    what = "episodes of the expert" if bench.has_expert else "episodes without aim"
    return f"{bench.of(done, len(tasks), what)}, {steps} steps, go the same way in a second environment"


def replay(bench: Bench, env: TextEnv, played: Played) -> None:
    """Play an episode's actions again in `env`. Raises Failed where an answer differs."""
    _same("start", (played.goal, played.first), bench.start(env, played.task), "in a second environment")
    for turn in played.turns:
        again = bench.step(env, turn.action)
        for what in ("observation", "reward", "terminated", "truncated"):
            _same(what, getattr(turn, what), getattr(again, what), "when the same actions are played again")
        for what in ("valid", "success"):
            _same(what, turn.info.get(what), again.info.get(what), "when the same actions are played again")


def other_process(bench: Bench) -> str:
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

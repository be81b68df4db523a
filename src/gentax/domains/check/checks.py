"""The checks. Each takes the harness and returns one line on what it did, or raises `CheckFailed`."""

from __future__ import annotations

import gc
import json
import math
import os
import random
import subprocess
import sys
import time
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain, zip_longest
from typing import Any

from gentax.core import Task
from gentax.domains.check.harness import (
    NONSENSE,
    RANDOM_STEPS,
    CheckFailed,
    Harness,
    NotApplicable,
    Resources,
    Trajectory,
    expert_policy,
    random_policy,
)

SEED = 7


def interface(harness: Harness) -> str:
    """reset and step return what Gymnasium says, a seed draws the same task again, close may be called twice."""
    env = harness.make()
    harness.location = f"reset(seed={SEED})"
    observation, info = env.reset(seed=SEED)
    task: Any = info.get("task")
    _must_be({"observation": (observation, str), "task": (task, Task), "goal": (info.get("goal"), str)})
    if task.split != env.split:
        raise CheckFailed(f"reset() of the {env.split} split draws from the {task.split} split")
    again, info = harness.env.reset(seed=SEED)
    if (again, info["task"]) != (observation, task):
        raise CheckFailed(f"it draws {task.id}, and {info['task'].id} in a second environment")
    harness.location = f"task {task.id}, step 1"
    result: Any = env.step(NONSENSE)
    if not isinstance(result, tuple) or len(result) != 5:
        raise CheckFailed("step() does not return five values")
    observation, reward, terminated, truncated, info = result
    _must_be(
        {
            "observation": (observation, str),
            "reward": (reward, (int, float)),
            "terminated": (terminated, bool),
            "truncated": (truncated, bool),
            "info['valid']": (info.get("valid"), bool),
            "info['success']": (info.get("success"), bool),
        }
    )
    env.close()
    env.close()
    return "reset and step return what they should, seeds repeat, close may be called twice"


def _must_be(values: dict[str, tuple[Any, Any]]) -> None:
    for what, (value, kind) in values.items():
        if not isinstance(value, kind):
            raise CheckFailed(f"{what} is a {type(value).__name__}")


EPISODES = 50  # episodes that are played again
SHORT = 15  # steps of an episode that has no expert


def same_episode(harness: Harness) -> str:
    """The same actions get the same answers in a second environment, and a task starts alike after another task."""
    second = harness.make()
    tasks = harness.tasks(min(EPISODES, harness.effort.tasks))
    steps = 0
    for task, between in harness.within_budget(zip(tasks, tasks[1:] + tasks[:1], strict=True)):
        _, start, played = harness.play(harness.env, task, harness.policy, None if harness.has_expert else SHORT)
        _must_be_equal("start", start, harness.start(second, task), "in a second environment")
        for step in played:
            again = harness.step(second, step.action, step.thought)
            for field, one, other in zip(step._fields, step, again, strict=True):
                _must_be_equal(field, one, other, "when the same actions are played again")
        harness.start(harness.env, between)
        harness.step(harness.env, NONSENSE)
        _must_be_equal("start", start, harness.start(harness.env, task), "after another task")
        steps += len(played)
    return f"{harness.count('episodes')}, {steps} steps, go the same way in a second environment"


OTHER_PROCESS_TASKS = 6
OTHER_PROCESS_SECONDS = 300  # that it may take
_OTHER_PROCESS = """\
import json, sys
from gentax.core import Task
from gentax.domains import make
request = json.load(sys.stdin)
env = make(request["name"], request["level"], **request["settings"])
starts = []
for task in request["tasks"]:
    observation, info = env.reset(options={"task": Task(*task)})
    starts.append([info["goal"], observation])
env.close()
print("\\nstarts " + json.dumps(starts))
"""


def other_process(harness: Harness) -> str:
    """A fresh process, whose sets and hashes are ordered in another way, starts the same tasks in the same way."""
    tasks = harness.tasks(OTHER_PROCESS_TASKS)
    request = {"name": harness.name, "level": harness.level, "settings": harness.settings}
    try:
        text = json.dumps({**request, "tasks": [[t.domain, t.level, t.split, t.index] for t in tasks]})
    except TypeError:
        raise NotApplicable("the settings cannot be handed to another process") from None
    try:
        run = subprocess.run(
            [sys.executable, "-c", _OTHER_PROCESS],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            timeout=OTHER_PROCESS_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise CheckFailed(f"another process does not start it in {OTHER_PROCESS_SECONDS} s") from None
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["nothing"])[-1]
        if "unknown domain" in reason:
            raise NotApplicable("it is registered in this process only")
        raise CheckFailed(f"another process cannot start it: {reason}")
    lines = [line for line in run.stdout.splitlines() if line.startswith("starts ")]  # an environment may print, too
    for task, start in zip(tasks, json.loads(lines[-1].removeprefix("starts ")), strict=True):
        _must_be_equal("start", harness.start(harness.env, task), tuple(start), "in another process")
    return f"{len(tasks)} tasks start alike in another process"


CONTEXT_CHARS = 40  # characters of a difference that are shown, before it and after


def _must_be_equal(what: str, expected: object, actual: object, where: str) -> None:
    """Raise `CheckFailed` with the place where the two begin to differ."""
    if expected == actual:
        return
    texts = ["\n".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in (expected, actual)]
    at = next((n for n, (left, right) in enumerate(zip_longest(*texts)) if left != right), 0)
    shown = [repr(text[max(0, at - CONTEXT_CHARS) : at + CONTEXT_CHARS]) for text in texts]
    raise CheckFailed(f"the {what} differs {where}: {' and '.join(shown)}")


CLAIM_TASKS = 3  # whose ends are looked at


def claims(harness: Harness) -> str:
    """Success, horizon and seeds are the environment's own, or it says what they were taken for."""
    for number, task in enumerate(harness.tasks(CLAIM_TASKS)):
        harness.play_mixed(harness.env, task, number)
    if caveats := harness.env.unwrapped.caveats():
        raise NotApplicable("; ".join(caveats))
    return "success, horizon and seeds are what the environment says"


def disjoint_contents(harness: Harness) -> str:
    """No content of one split is in another, going by what the environment says its tasks are made of."""
    env = harness.env.unwrapped
    if len(env.domain.splits) > 1 and env.content_of(harness.tasks(1)[0]) is None:
        raise NotApplicable(
            "it does not say what its tasks are made of (`content`): nobody can claim that its test tasks are new, and "
            "intervals count each task as independent of the others"
        )
    first: dict[str, Task] = {}
    counts = dict.fromkeys(env.domain.splits, 0)
    for task in _starts(harness):
        harness.location = f"task {task.id}"
        content = env.content_of(task)
        if content is None:
            raise CheckFailed("it says nothing of what this task is made of, and of others it does")
        same = first.setdefault(content, task)
        if same.split != task.split:
            harness.location = ""
            raise CheckFailed(f"{same.id} and {task.id} are made of the same, and are in different splits")
        counts[task.split] += same is task
    message = ", ".join(f"{number} {split}" for split, number in counts.items())
    return f"{harness.count('tasks')}: contents {message}; none is in two splits"


def disjoint_splits(harness: Harness) -> str:
    """No task of one split is in another.

    Two tasks are the same when their fingerprints are, and the episodes of the expert and some random ones too: the
    first view of a world may be that of another.
    """
    by_fingerprint = defaultdict(list)
    for task in _starts(harness):
        harness.start(harness.env, task)
        by_fingerprint[harness.env.unwrapped.fingerprint()].append(task)
    splits = len(harness.env.domain.splits)
    message = f"{harness.count('tasks')} of {splits} splits, {len(by_fingerprint)} of them different, none in two"
    alike = [tasks for tasks in by_fingerprint.values() if len({task.split for task in tasks}) > 1]
    if not alike:
        return message
    harness.start_timer(harness.effort.seconds / 10)  # else the counting would leave none
    first_by_transcript: dict[Any, Task] = {}
    for task in harness.within_budget([task for tasks in alike for task in tasks], least=4):
        first = first_by_transcript.setdefault(_transcripts(harness, task), task)
        if first.split != task.split:
            harness.location = ""
            raise CheckFailed(f"{first.id} and {task.id} are the same task: they begin alike and go alike")
    compared = harness.count("played")
    return f"{message}; {sum(map(len, alike))} begin like one of another split, and the {compared} go other ways"


def _starts(harness: Harness) -> Iterable[Task]:
    """Return the tasks of all splits that are compared."""
    splits = len(harness.env.domain.splits)
    if splits < 2:
        raise NotApplicable("it has one split only")
    return harness.within_budget(harness.tasks(harness.effort.starts * splits), least=2 * splits)


WALKS = 3  # random episodes that are compared before two tasks are called the same


def _transcripts(harness: Harness, task: Task) -> tuple[object, ...]:
    """Return what the expert and some seeded random policies do and read in a task."""
    walks = [partial(random_policy, random.Random(seed)) for seed in range(WALKS)]
    trajectories = [harness.play(harness.env, task, walk, RANDOM_STEPS) for walk in walks]
    if harness.has_expert:
        trajectories.append(harness.play(harness.env, task, expert_policy))
    return tuple((start, *((step.action, step.observation) for step in steps)) for _, start, steps in trajectories)


def expert_wins(harness: Harness) -> str:
    """The expert's episodes end in success; its actions and thoughts are words; every action is accepted."""
    if not harness.has_expert:
        raise NotApplicable("it has no expert")
    lengths = []
    for task in harness.sample(harness.effort.tasks):
        trajectory = harness.play(harness.env, task, expert_policy)
        steps = trajectory.steps
        for step in harness.steps_of(trajectory):
            for what, text in (("action", step.action), ("thought", step.thought)):
                if not isinstance(text, str) or not text.strip():
                    raise CheckFailed(f"the expert's {what} is {text!r}, not words")
            if step.valid is not True:
                raise CheckFailed(f"the environment refuses the expert's action {step.action!r}")
        harness.location = f"task {task.id}, step {len(steps) + 1}"
        if not (steps and (steps[-1].terminated or steps[-1].truncated)):
            raise CheckFailed("the expert has no move and the episode is not over")
        if not trajectory.won:
            end = "the horizon" if steps[-1].truncated else "failure"
            raise CheckFailed(f"the expert's episode ends in {end} after {len(steps)} steps")
        lengths.append(len(steps))
    horizon = harness.env.horizon
    return f"{harness.count('tasks')} solved in {min(lengths)} to {max(lengths)} steps, horizon {horizon}"


EPSILON = 1e-6  # by which a sum of dense rewards may exceed 1
REWARD_TASKS = 60


def reward_bounds(harness: Harness) -> str:
    """Sparse rewards are 1 on success and else 0, dense ones sum to at most 1; of the expert and of random play."""
    sparse, dense = harness.make(reward="sparse"), harness.make(reward="dense")
    returns = []
    for number, task in enumerate(harness.sample(REWARD_TASKS, least=2)):
        _bounded_return(harness, "sparse", harness.play_mixed(sparse, task, number))
        returns.append(_bounded_return(harness, "dense", harness.play_mixed(dense, task, number)))
    dense_returns = f"{min(returns):.2f} to {max(returns):.2f}"
    return f"{harness.count('tasks')}: sparse 1 exactly on success, dense returns {dense_returns}"


def _bounded_return(harness: Harness, kind: str, trajectory: Trajectory) -> float:
    """Return the sum of an episode's rewards. Raises `CheckFailed` when one is out of bounds."""
    total = 0.0
    for step in harness.steps_of(trajectory):
        if not math.isfinite(step.reward):
            raise CheckFailed(f"the {kind} reward is {step.reward}")
        if kind == "sparse" and step.reward != float(step.success):
            raise CheckFailed(f"the sparse reward is {step.reward}, and success is {step.success}")
        if step.success and not step.terminated:
            raise CheckFailed("it says success and goes on")
        total += step.reward
        if total > 1 + EPSILON:
            raise CheckFailed(f"the {kind} rewards sum to {total:.6g}, more than 1")
    return total


ADMISSIBLE_TASKS = 12
LISTED_ACTIONS = 8  # actions tried of each list
PREFIX_STEPS = 40  # steps of the way to a state, at most


def admissible_accepted(harness: Harness) -> str:
    """Each listed action is accepted, tried from the same state; nonsense is refused, and the expert still wins."""
    env = harness.env
    accepted = 0
    for task in harness.sample(ADMISSIBLE_TASKS, least=2):
        trajectory = harness.play(env, task, harness.policy, PREFIX_STEPS)
        cut = harness.rng.randrange(len(trajectory.steps)) if trajectory.steps else 0
        go_to_state = partial(_replay, harness, task, [step.action for step in trajectory.steps[:cut]])
        go_to_state()
        admissible = env.admissible()
        if admissible is None:
            raise NotApplicable("it does not say what is admissible")
        if not isinstance(admissible, list) or not all(isinstance(a, str) and a.strip() for a in admissible):
            raise CheckFailed("admissible() is not a list of words")
        if len(set(admissible)) < len(admissible):
            raise CheckFailed("admissible() lists an action twice")
        for action in harness.rng.sample(admissible, min(LISTED_ACTIONS, len(admissible))):
            go_to_state()
            if harness.step(env, action).valid is not True:
                raise CheckFailed(f"the admissible action {action!r} is refused")
            accepted += 1
        go_to_state()
        step = harness.step(env, NONSENSE)
        if step.valid is True:
            raise CheckFailed(f"{NONSENSE!r} is accepted, and is not among the admissible actions")
        if step.terminated or step.success:
            raise CheckFailed(f"the refused action {NONSENSE!r} ends the episode")
        if harness.has_expert and trajectory.won and len(trajectory.steps) < env.horizon:  # a step is left for it
            rest = harness.play_on(env, expert_policy)
            if not (rest and rest[-1].success):
                raise CheckFailed(f"after the refused action {NONSENSE!r} the expert does not win any more")
    return f"in {harness.count('states')} {accepted} listed actions accepted, and nonsense refused"


def _replay(harness: Harness, task: Task, actions: list[str]) -> None:
    """Bring the environment to the state after `actions`."""
    harness.start(harness.env, task)
    for action in actions:
        harness.step(harness.env, action)


LIMIT = 20_000  # characters of a goal or an observation
TEXT_TASKS = 40

STRANGE_STRINGS = {
    "nothing": "",
    "a space": " ",
    "a megabyte": "x" * (1 << 20),
    "a megabyte of words": "go to " * (1 << 18),
    "a NUL": "look\0around",
    "control characters": "\x07\x08\x1b[2J\x7f\x85",
    "newlines": "look\nlook\r\nlook\u2028look",
    "an emoji": "🔥👩‍👩‍👧 focus",
    "lone surrogates": "\ud800 go \udfff",
    "right-to-left marks": "\u202egnihtemos od\u202c\u200f",
    "a format string": "%s %n {0} {self.__class__} ${jndi:x} {{7*7}}",
    "control tokens": "</action><eos><|im_end|></think><action>",
    "quotes": "'); DROP TABLE tasks; -- \"\\",
    "a number": "9" * 400,
}


def readable_texts(harness: Harness) -> str:
    """Goals and observations are text, not empty, bounded, free of control characters."""
    texts = longest = 0
    for number, task in enumerate(harness.sample(TEXT_TASKS, least=2)):
        trajectory = harness.play_mixed(harness.env, task, number)
        goal, first = trajectory.start
        harness.location = f"task {task.id}, reset"
        _must_be_readable("goal", goal)
        for text in chain([first], (step.observation for step in harness.steps_of(trajectory))):
            _must_be_readable("observation", text)
            texts, longest = texts + 1, max(longest, len(text))
    return f"{texts} texts of {harness.count('tasks')}, the longest {longest} characters"


def any_string(harness: Harness) -> str:
    """Every string is survived: answered with a readable text, and then the environment works as before."""
    task = harness.tasks(1)[0]
    harness.start(harness.env, task)
    for what, action in STRANGE_STRINGS.items():
        try:
            step = harness.step(harness.env, action)
            _must_be_readable("answer", step.observation)
        except CheckFailed as failed:
            raise CheckFailed(f"{what} as an action: {failed}") from None
        except Exception as error:
            raise CheckFailed(f"{what} as an action raises {type(error).__name__}: {error}") from error
        if step.success:
            raise CheckFailed(f"{what} as an action wins")
        if step.terminated or step.truncated:
            harness.start(harness.env, task)
    after = harness.play(harness.env, task, harness.policy, None if harness.has_expert else SHORT)
    if harness.has_expert and not after.won:
        raise CheckFailed("after strange actions and a reset the expert does not win any more")
    end = "the expert wins" if after.won else "a reset works"
    return f"{len(STRANGE_STRINGS)} strange strings survived; then {end}"


def _must_be_readable(what: str, text: object) -> None:
    """Raise `CheckFailed` unless `text` is what a goal or an observation may be."""
    if not isinstance(text, str):
        raise CheckFailed(f"the {what} is a {type(text).__name__}, not a str")
    if not text.strip():
        raise CheckFailed(f"the {what} is empty")
    if len(text) > LIMIT:
        raise CheckFailed(f"the {what} has {len(text)} characters, more than {LIMIT}")
    for char in "" if text.isascii() and text.isprintable() else text:
        if unicodedata.category(char) == "Cs":
            raise CheckFailed(f"the {what} holds the lone surrogate U+{ord(char):04X}: it cannot be written as UTF-8")
        if unicodedata.category(char) == "Cc" and char not in "\n\t":
            raise CheckFailed(f"the {what} holds the control character U+{ord(char):04X}")


SETTLE = 0.2  # seconds for what the last close told to end
PATIENCE = 2.0  # seconds that what was told to end may take


def resources_released(harness: Harness) -> str:
    """After another environment is made, played and closed, nothing is held that was not held before.

    The environment of the other checks is closed first: it has filled the caches and started what is meant to stay.
    Both are still referenced while resources are counted: `close` must release them, not the end of the object.
    """
    task = harness.tasks(1)[0]
    harness.play(harness.env, task, harness.policy, RANDOM_STEPS)
    harness.env.close()
    gc.collect()  # what earlier checks dropped
    time.sleep(SETTLE)
    before = Resources.now()
    env = harness.make()
    harness.play(env, task, harness.policy, RANDOM_STEPS)
    env.close()
    harness.location = ""
    after, deadline = Resources.now(), time.monotonic() + PATIENCE
    while any(now > then for now, then in zip(after, before, strict=True)) and time.monotonic() < deadline:
        time.sleep(0.05)
        after = Resources.now()
    for name, now, then in zip(Resources._fields, after, before, strict=True):
        if now > then:
            raise CheckFailed(f"an environment that was made, played and closed leaves {now - then} more {name}")
    return f"nothing is left: {after.processes} processes, {after.threads} threads, {after.files} files as before"


CHECKS: tuple[tuple[str, float, Callable[[Harness], str]], ...] = (  # in order: name, share of the time, the check
    ("interface", 0.0, interface),
    ("same episode", 0.16, same_episode),
    ("other process", 0.0, other_process),
    ("claims", 0.0, claims),
    ("contents", 0.24, disjoint_contents),
    ("disjoint splits", 0.16, disjoint_splits),
    ("expert", 0.2, expert_wins),
    ("rewards", 0.08, reward_bounds),
    ("admissible", 0.08, admissible_accepted),
    ("texts", 0.08, readable_texts),
    ("any string", 0.0, any_string),
    ("close", 0.0, resources_released),  # last: it closes the environment that the others play
)

"""Gymnasium's conventions, and what `TextEnv` adds to them: signatures, ends, the horizon, errors in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium

from gentax.core import ExpertAction, Task, TextEnv, UsageError
from gentax.domains.check.bench import NONSENSE, Bench, Played, expert
from gentax.domains.check.result import Failed, NotApplicable
from gentax.domains.check.same import task_of

NOBODY = "no-such-thing"  # no level, split, reward or option
HORIZON = 3  # steps of the short episodes
SEED = 7


def signatures(bench: Bench) -> str:
    """reset and step return what Gymnasium says, a seed draws the same task again, an episode must be begun."""
    env = bench.make()
    if not isinstance(env, gymnasium.Env):
        raise Failed(f"it is a {type(env).__name__}, not a gymnasium.Env")
    bench.start(bench.env, bench.tasks(1)[0])  # what environments share is started once for all checks
    bench.where = ""
    _must_raise(gymnasium.error.ResetNeeded, "step() before reset()", lambda: env.step(NONSENSE))
    bench.where = "reset(seed)"
    began = env.reset(seed=SEED)
    if not (isinstance(began, tuple) and len(began) == 2 and isinstance(began[0], str) and isinstance(began[1], dict)):
        raise Failed("reset() does not return (str, dict)")
    info = began[1]
    if not isinstance(info.get("task"), Task) or not isinstance(info.get("goal"), str):
        raise Failed("the info of reset() lacks a `task` or a `goal`")
    if info["task"].split != env.split:
        raise Failed(f"reset() of the {env.split} split draws from the {info['task'].split} split")
    again = bench.env.reset(seed=SEED)
    if (again[0], again[1]["task"]) != (began[0], info["task"]):
        raise Failed(f"reset(seed={SEED}) draws {info['task'].id}, and {again[1]['task'].id} in a second environment")
    bench.where = f"task {info['task'].id}, step 1"
    stepped: Any = env.step(NONSENSE)
    if not isinstance(stepped, tuple) or len(stepped) != 5:
        raise Failed("step() does not return five values")
    observation, reward, terminated, truncated, info = stepped
    for what, value, kind in (
        ("observation", observation, str),
        ("reward", reward, (int, float)),
        ("terminated", terminated, bool),
        ("truncated", truncated, bool),
        ("info", info, dict),
        ("info['valid']", info.get("valid") if isinstance(info, dict) else None, bool),
        ("info['success']", info.get("success") if isinstance(info, dict) else None, bool),
    ):
        if not isinstance(value, kind):
            raise Failed(f"{what} of step() is a {type(value).__name__}")
    env.close()
    env.close()  # twice is harmless
    return "reset and step return what they should, seeds repeat, close may be called twice"


def exact_horizon(bench: Bench) -> str:
    """An episode is cut off exactly at the horizon, not when it ends there by itself, and is over then."""
    task = bench.tasks(1)[0]
    short = bench.make(horizon=HORIZON)
    _cut(bench, short, task, lambda env: ExpertAction(NONSENSE), HORIZON)
    if not bench.has_expert:
        return f"cut off at step {HORIZON}; step() after the end raises"
    for task in bench.tasks(8):
        whole = bench.play(bench.env, task, expert)
        if len(whole.turns) > 1:
            break
    else:
        raise NotApplicable("the expert solves its tasks in a step")
    length = len(whole.turns)
    _cut(bench, bench.make(horizon=length - 1), task, expert, length - 1)
    exact = bench.make(horizon=length)
    last = bench.play(exact, task_of(task, exact), expert).turns[-1]
    if not last.terminated or last.truncated:
        raise Failed(f"it ends by itself in step {length}, its horizon, and says truncated={last.truncated}")
    _over(bench, exact)
    return f"cut off at steps {HORIZON} and {length - 1}, not when it ends at {length}; step() after the end raises"


def errors(bench: Bench) -> str:
    """What there is not is refused with one line: levels, splits, rewards, options, indices."""
    env = bench.make()
    split = env.domain.splits[0]
    for what, ask in (
        (f"the level {NOBODY!r}", lambda: bench.make(level=NOBODY)),
        (f"the split {NOBODY!r}", lambda: bench.make(split=NOBODY)),
        (f"the reward {NOBODY!r}", lambda: bench.make(reward=NOBODY)),
        ("a horizon of 0", lambda: bench.make(horizon=0)),
        (f"the reset option {NOBODY!r}", lambda: env.reset(options={NOBODY: 1})),
        (f"reset to the split {NOBODY!r}", lambda: env.reset(options={"split": NOBODY})),
        ("an index past the end", lambda: env.reset(options={"index": env.size(split), "split": split})),
        ("an index below 0", lambda: env.reset(options={"index": -1, "split": split})),
        ("a task of another domain", lambda: env.reset(options={"task": Task(NOBODY, env.level, split, 0)})),
    ):
        error = _must_raise(UsageError, what, ask)
        if len(str(error).splitlines()) != 1:
            raise Failed(f"{what} is refused with {len(str(error).splitlines())} lines, not one")
    return "unknown levels, splits, rewards, options and indices are refused with one line each"


def _cut(bench: Bench, env: TextEnv, task: Task, choose: Callable, horizon: int) -> None:
    """Play until the end, which must be a truncation at `horizon`."""
    played: Played = bench.play(env, task_of(task, env), choose, horizon + 1)
    last = played.turns[-1]
    if last.terminated:
        raise NotApplicable(f"a refused action ends its episodes, in step {len(played.turns)}")
    if not last.truncated or len(played.turns) != horizon:
        when = f"after {len(played.turns)} steps" if last.truncated else "not at all"
        raise Failed(f"with a horizon of {horizon} it is cut off {when}")
    _over(bench, env)


def _over(bench: Bench, env: TextEnv) -> None:
    _must_raise(gymnasium.error.ResetNeeded, "step() after the end", lambda: bench.step(env, NONSENSE))


def _must_raise(kind: type[Exception], what: str, call: Callable[[], object]) -> Exception:
    """Return the error of `kind` that `call` must raise."""
    try:
        call()
    except kind as error:
        return error
    except Exception as error:
        raise Failed(f"{what} raises {type(error).__name__}, not {kind.__name__}: {error}") from error
    raise Failed(f"{what} raises nothing, not {kind.__name__}")

"""Admissible actions are accepted; what is refused does no harm.

`TextEnv.admissible` says what the environment would accept. So each listed action must be accepted from the state it is
listed in, and nonsense must not be. Actions from other states may be accepted though they are not listed (a search box
takes any words); where they are refused, the episode must be as winnable as before.
"""

from __future__ import annotations

from gentax.core import Task, TextEnv
from gentax.domains.check.bench import NONSENSE, Bench, expert
from gentax.domains.check.result import Failed, NotApplicable

TASKS = 12
LISTED = 8  # actions tried of each list
STRANGERS = 4  # actions of other states tried in each state
WAY = 40  # steps of the way to a state, at most


def admissible_accepted(bench: Bench) -> str:
    """Each listed action is accepted, each tried from the same state; nonsense is refused, and harms nothing."""
    tasks = bench.tasks(min(TASKS, bench.effort.tasks))
    known: set[str] = set()  # actions of the states seen so far
    counts = dict.fromkeys(("states", "accepted", "refused", "taken", "moves", "unlisted"), 0)
    for task in bench.in_time(tasks, least=2):
        played = bench.play(bench.env, task, expert if bench.has_expert else bench.wander, WAY)
        cut = bench.rng.randrange(len(played.turns)) if played.turns else 0
        prefix = played.actions[:cut]
        _at(bench, bench.env, task, prefix)
        listed = bench.env.admissible()
        if listed is None:
            raise NotApplicable("it does not say what is admissible")
        _well_formed(listed)
        counts["states"] += 1
        if bench.has_expert and cut < len(played.turns):
            counts["moves"] += 1
            counts["unlisted"] += played.actions[cut] not in listed
        for action in bench.rng.sample(listed, min(LISTED, len(listed))):
            _at(bench, bench.env, task, prefix)
            if bench.step(bench.env, action).info["valid"] is not True:
                raise Failed(f"the admissible action {action!r} is refused")
            counts["accepted"] += 1
        strangers = sorted(known.difference(listed))
        for action in [NONSENSE, *bench.rng.sample(strangers, min(STRANGERS, len(strangers)))]:
            _at(bench, bench.env, task, prefix)
            turn = bench.step(bench.env, action)
            if turn.info["valid"] is True:
                if action == NONSENSE:
                    raise Failed(f"{action!r} is accepted, and is not among the admissible actions")
                counts["taken"] += 1
                continue
            if turn.terminated or turn.info["success"]:
                raise Failed(f"the refused action {action!r} ends the episode")
            counts["refused"] += 1
            if bench.has_expert and played.won and len(played.turns) < bench.env.horizon:  # a step is left for it
                rest = bench.play_on(bench.env, expert)
                if not (rest and rest[-1].info["success"]):
                    raise Failed(f"after the refused action {action!r} the expert does not win any more")
        known.update(listed)
    found = f"in {counts['states']} states {counts['accepted']} listed actions accepted, {counts['refused']} refused"
    if counts["taken"]:
        found += f", {counts['taken']} of other states accepted unlisted"
    if counts["unlisted"]:
        found += f"; {counts['unlisted']} of the expert's {counts['moves']} moves are not listed"
    return found


def _at(bench: Bench, env: TextEnv, task: Task, prefix: tuple[str, ...]) -> None:
    """Bring `env` to the state after `prefix`."""
    bench.start(env, task)
    for action in prefix:
        bench.step(env, action)


def _well_formed(listed: object) -> None:
    if not isinstance(listed, list) or not all(isinstance(action, str) and action.strip() for action in listed):
        raise Failed("admissible() is not a list of words")
    if len(set(listed)) < len(listed):
        raise Failed("admissible() lists an action twice")

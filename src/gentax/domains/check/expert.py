"""The expert solves every checked task within the horizon, by moves that the environment accepts."""

from __future__ import annotations

from gentax.domains.check.bench import Bench, expert
from gentax.domains.check.result import Failed, NotApplicable


def expert_wins(bench: Bench) -> str:
    """The expert's episodes end in success; its actions and thoughts are words; every action is accepted."""
    if not bench.has_expert:
        raise NotApplicable("it has no expert")
    tasks = bench.tasks(bench.effort.tasks)
    lengths = []
    for task in bench.in_time(tasks):
        played = bench.play(bench.env, task, expert)
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

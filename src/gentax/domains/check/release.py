"""close() gives back every process, thread and file."""

from __future__ import annotations

import gc
import time

from gentax.domains.check import proc
from gentax.domains.check.bench import WANDER, Bench, expert
from gentax.domains.check.result import Failed, NotApplicable

SETTLE = 0.2  # seconds for what the last close told to end
PATIENCE = 2.0  # seconds that what was told to end may take


def gives_back(bench: Bench) -> str:
    """After another is made, played and closed, nothing is held that was not held before.

    The one that the other checks played is closed first: it has filled the caches and started what is meant to stay.
    Both are still referred to while it is counted what is held: `close` must give it back, not the end of the object.
    """
    if not proc.readable_here():
        raise NotApplicable("this system has no /proc to count in")
    task, choose = bench.tasks(1)[0], expert if bench.has_expert else bench.wander
    bench.play(bench.env, task, choose, WANDER)
    bench.env.close()
    gc.collect()  # what earlier checks dropped
    time.sleep(SETTLE)
    before = proc.held()
    env = bench.make()
    bench.play(env, task, choose, WANDER)
    env.close()
    bench.where = ""
    after, deadline = proc.held(), time.monotonic() + PATIENCE
    while any(now > then for now, then in zip(after, before, strict=True)) and time.monotonic() < deadline:
        time.sleep(0.05)
        after = proc.held()
    for what, now, then in zip(proc.Held._fields, after, before, strict=True):
        if now > then:
            raise Failed(f"an environment that was made, played and closed leaves {now - then} more {what}")
    return f"nothing is left: {after.processes} processes, {after.threads} threads, {after.files} files as before"

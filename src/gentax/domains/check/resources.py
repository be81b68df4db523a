"""Checks of resources: memory stays flat over many episodes, and close() gives back every process, thread and file."""

from __future__ import annotations

import gc
import time
from contextlib import suppress
from statistics import median
from typing import NamedTuple

import psutil

from gentax.domains.check.harness import RANDOM_STEPS, CheckFailed, Harness, NotApplicable, expert_policy

OWN = 8.0  # MB by which this process may grow from the third quarter to the last: 32 MB in 1,000 episodes
CHILDREN = 64.0  # MB by which the processes it started may: a Java heap grows until it is swept, and is bounded
FEWEST = 16  # episodes that say anything
SETTLE = 0.2  # seconds for what the last close told to end
PATIENCE = 2.0  # seconds that what was told to end may take


def flat_memory(harness: Harness) -> str:
    """Neither this process nor those it started grow from the third quarter of the episodes to the last.

    Resident memory is read after each episode; medians are compared, since caches and heaps fill in the first half.
    """
    tasks = harness.tasks(harness.effort.episodes)
    process = psutil.Process()
    own: list[float] = []
    children: list[float] = []
    for number in harness.within_budget(range(harness.effort.episodes), least=FEWEST):
        task = tasks[number % len(tasks)]
        harness.play(harness.env, task, expert_policy if harness.has_expert else harness.random_policy, RANDOM_STEPS)
        own.append(_resident(process))
        if number % 20 == 0:
            started = process.children(recursive=True)
        children.append(sum(map(_resident, started)))
    harness.location = ""
    trajectory, rates = len(own), {}
    if trajectory < FEWEST:
        raise NotApplicable(f"{trajectory} episodes say nothing: ask for {FEWEST} or more")
    for who, series, bound in (("this process", own, OWN), ("its children", children, CHILDREN)):
        quarter = trajectory // 4
        growth = median(series[-quarter:]) - median(series[-2 * quarter : -quarter])
        rates[who] = growth / (trajectory / 4) * 1000
        if growth > bound:
            raise CheckFailed(
                f"{who} grew by {growth:.1f} MB in a quarter of {trajectory} episodes, {rates[who]:.0f} MB in 1,000 "
                f"(bound {bound:.0f} MB a quarter)"
            )
    message = f"{max(0.0, rates['this process']):.1f} MB in 1,000 episodes"
    if any(children):
        message += f", its processes {max(0.0, rates['its children']):.0f} MB"
    return f"{message}; {harness.count(trajectory, harness.effort.episodes, 'episodes')}"


def resources_released(harness: Harness) -> str:
    """After another environment is made, played and closed, nothing is held that was not held before.

    The environment of the other checks is closed first: it has filled the caches and started what is meant to stay.
    Both are still referenced while resources are counted: `close` must release them, not the end of the object.
    """
    task, policy = harness.tasks(1)[0], expert_policy if harness.has_expert else harness.random_policy
    harness.play(harness.env, task, policy, RANDOM_STEPS)
    harness.env.close()
    gc.collect()  # what earlier checks dropped
    time.sleep(SETTLE)
    before = _count_resources()
    env = harness.make()
    harness.play(env, task, policy, RANDOM_STEPS)
    env.close()
    harness.location = ""
    after, deadline = _count_resources(), time.monotonic() + PATIENCE
    while any(now > then for now, then in zip(after, before, strict=True)) and time.monotonic() < deadline:
        time.sleep(0.05)
        after = _count_resources()
    for name, now, then in zip(_Resources._fields, after, before, strict=True):
        if now > then:
            raise CheckFailed(f"an environment that was made, played and closed leaves {now - then} more {name}")
    return f"nothing is left: {after.processes} processes, {after.threads} threads, {after.files} files as before"


class _Resources(NamedTuple):
    """What this process holds at one moment."""

    processes: int  # descendants that run, zombies not counted
    threads: int
    files: int  # open file descriptors (handles on Windows)


def _count_resources() -> _Resources:
    process = psutil.Process()
    running = 0
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            running += child.status() != psutil.STATUS_ZOMBIE
    files = process.num_fds() if hasattr(process, "num_fds") else 0  # Windows has no such count
    return _Resources(running, process.num_threads(), files)


def _resident(process: psutil.Process) -> float:
    """Return the resident memory of a process in MB; 0 when it has ended."""
    try:
        return process.memory_info().rss / 1e6
    except psutil.Error:
        return 0.0

"""Memory stays flat over many episodes.

The resident memory of this process, and of the processes it started, is read after each episode. What counts is the
median of the last quarter of the episodes less that of the third: caches and heaps fill in the first half. A process of
its own may grow by `CHILDREN` there: a Java heap grows until it is swept, and is bounded by its setting.
"""

from __future__ import annotations

from statistics import median

from gentax.domains.check import proc
from gentax.domains.check.bench import WANDER, Bench, expert
from gentax.domains.check.result import Failed, NotApplicable

OWN = 8.0  # MB by which this process may grow from the third quarter to the last: 32 MB in 1,000 episodes
CHILDREN = 64.0  # MB by which the processes it started may
FEWEST = 16  # episodes that say anything


def flat_memory(bench: Bench) -> str:
    """Neither this process nor those it started grow from the third quarter of the episodes to the last."""
    if not proc.readable_here():
        raise NotApplicable("this system has no /proc to read memory from")
    tasks = bench.tasks(bench.effort.episodes)
    own, children = [], []
    for number in bench.in_time(range(bench.effort.episodes), least=FEWEST):
        task = tasks[number % len(tasks)]
        bench.play(bench.env, task, expert if bench.has_expert else bench.wander, WANDER)
        own.append(proc.resident())
        if number % 20 == 0:
            started = proc.descendants()
        children.append(sum(map(proc.resident, started)))
    bench.where = ""
    played, rates = len(own), {}
    if played < FEWEST:
        raise NotApplicable(f"{played} episodes say nothing: ask for {FEWEST} or more")
    for who, series, bound in (("this process", own, OWN), ("its children", children, CHILDREN)):
        growth = _growth(series)
        rates[who] = growth / (played / 4) * 1000
        if growth > bound:
            raise Failed(
                f"{who} grew by {growth:.1f} MB in a quarter of {played} episodes, {rates[who]:.0f} MB in 1,000 "
                f"(bound {bound:.0f} MB a quarter)"
            )
    said = f"{max(0.0, rates['this process']):.1f} MB in 1,000 episodes"
    if any(children):
        said += f", its processes {max(0.0, rates['its children']):.0f} MB"
    return f"{said}; {bench.of(played, bench.effort.episodes, 'episodes')}"


def _growth(series: list[float]) -> float:
    """Return the median of the last quarter less that of the third, in MB."""
    quarter = len(series) // 4
    return median(series[-quarter:]) - median(series[-2 * quarter : -quarter])

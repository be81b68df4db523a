"""Resident memory with every installed domain open at once, and how much each adds.

    python benchmarks/memory.py [--episodes 3]

Opens one environment of each domain, plays the expert for some episodes in it and leaves it open. Printed are the
megabytes of this process (RSS) and, beside them, of its Java processes: one for each package that needs one. A second
environment of each domain is opened at the end, which must start no further process. The target is 600 MB for this
process.
"""

from __future__ import annotations

import argparse

import psutil

import gentax
from gentax.domains import domains, missing_modules

PROCESS = psutil.Process()


def resident(process: psutil.Process = PROCESS) -> float:
    """Return the resident memory of a process in MB."""
    return process.memory_info().rss / 1e6


def descendants() -> list[psutil.Process]:
    return PROCESS.children(recursive=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=3, help="episodes of the expert in each domain")
    args = parser.parse_args()
    before = resident()
    print(f"{'':16}{'this process':>14}{'added':>8}{'Java':>8}{'processes':>11}    (MB)")
    print(f"{'import gentax':16}{before:14.0f}{'':8}{0:8.0f}{0:11}")
    envs = []
    for name, record in domains().items():
        if missing_modules(record):
            print(f"{name:16}not installed: {record.enable}")
            continue
        env = gentax.make(name)
        envs.append(env)
        for index in range(args.episodes):
            env.reset(options={"index": index})
            over = False
            while not over and (move := env.expert()) is not None:
                _, _, terminated, truncated, _ = env.step(move.action)
                over = terminated or truncated
        now, started = resident(), descendants()
        print(f"{name:16}{now:14.0f}{now - before:8.0f}{sum(map(resident, started)):8.0f}{len(started):11}")
        before = now
    first = len(descendants())
    more = [gentax.make(env.domain.name) for env in envs]
    for env in more:
        env.reset(options={"index": 0})
    print(f"a second of each: {resident():.0f} MB, {len(descendants()) - first} further processes")
    for env in (*envs, *more):
        env.close()
    print(f"all closed: {len(descendants())} processes left")


if __name__ == "__main__":
    main()

"""What this process and its descendants hold, read from /proc. Systems without /proc are not read."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Held(NamedTuple):
    """What is held at one moment."""

    processes: int  # descendants that run
    threads: int  # of this process
    files: int  # open file descriptors of this process


def readable_here() -> bool:
    """Return whether this system has what the functions below read."""
    return (PROC / "self" / "statm").exists() and (PROC / "self" / "fd").exists()


def held() -> Held:
    """Return what this process holds now."""
    # Listing the folder opens a file of its own, which is counted each time.
    files = len(os.listdir(PROC / "self" / "fd"))
    return Held(len(descendants()), len(os.listdir(PROC / "self" / "task")), files)


def descendants() -> list[int]:
    """Return the ids of all processes that descend from this one and run; not those that only wait to be buried."""
    parents = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                state, parent = (entry / "stat").read_text(errors="replace").rsplit(")", 1)[1].split()[:2]
                if state != "Z":
                    parents[int(entry.name)] = int(parent)
    found, last = [], {os.getpid()}
    while last:
        last = {pid for pid, parent in parents.items() if parent in last}
        found += last
    return found


def resident(pid: int | str = "self") -> float:
    """Return the resident memory of a process in MB; 0 when there is none of that id."""
    try:
        pages = int((PROC / str(pid) / "statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

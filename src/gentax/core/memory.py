"""Keep freed memory for the next step instead of giving it back and asking again.

Learning frees and takes the same large blocks hundreds of times a second. glibc returns each to the system, and
getting it again costs a page fault for every 4 kB: a third of a step of the shipped model on two cores.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt's settings in malloc.h
_LARGE = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed; return whether it could be told. Harmless where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGE // 2) and mallopt(_TRIM_THRESHOLD, _LARGE))

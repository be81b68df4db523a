"""What a long run keeps in memory: freed blocks for its next step, and no more compiled products than it uses again.

Learning frees and takes the same large blocks hundreds of times a second. glibc returns each to the system, and
getting it again costs a page fault for every 4 kB: a third of a step of the shipped model on two cores. Playing takes
ever larger blocks as histories grow, and none fits where a smaller one was: there it would only pile up.

oneDNN compiles a product for each shape and keeps a thousand of them, which take about a megabyte each. Playing meets
new shapes for hundreds of steps.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt's settings in malloc.h
_LARGE, _USUAL = 2**31 - 1, 128 * 1024


PRODUCTS = 256  # with as many, compiling again takes under 1 % of a step of the shipped model; with 64 it takes 5 %


def few_compiled_products() -> None:
    """Let oneDNN keep `PRODUCTS`, unless the environment says how many. It asks once, before its first product."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(PRODUCTS))


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed; return whether it could be told. Harmless where there is no glibc."""
    libc = _glibc()
    return libc is not None and bool(
        libc.mallopt(_MMAP_THRESHOLD, _LARGE // 2) and libc.mallopt(_TRIM_THRESHOLD, _LARGE)
    )


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep what is freed while this lasts, and give it back at the end."""
    keep_freed_memory()
    try:
        yield
    finally:
        libc = _glibc()
        if libc is not None:
            libc.mallopt(_MMAP_THRESHOLD, _USUAL)
            libc.mallopt(_TRIM_THRESHOLD, _USUAL)
            libc.malloc_trim(0)


def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if libc.mallopt and libc.malloc_trim else None
    except (OSError, AttributeError):
        return None

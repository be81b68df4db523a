"""Process-wide settings: Ctrl-C that waits for a safe place, and what a long run keeps in memory."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupt:
    """Whether the user asked to stop."""

    requested = False


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Hold back the first Ctrl-C or SIGTERM, which sets `requested`: stop where that is safe. A second one raises.

    Outside the main thread, where Python delivers no signals, nothing changes.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def hold(number: int, frame: Any) -> None:
        if interrupt.requested:
            raise KeyboardInterrupt
        interrupt.requested = True

    before = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# What a long run keeps in memory: freed blocks for its next step, and no more compiled products than it uses again.
#
# Learning frees and takes the same large blocks hundreds of times a second. glibc returns each to the system, and
# getting it again costs a page fault for every 4 kB: a third of a step of the shipped model on two cores. Playing
# takes ever larger blocks as histories grow, and none fits where a smaller one was: there it would only pile up.
#
# oneDNN compiles a product for each shape and keeps a thousand of them, which take about a megabyte each. Playing
# meets new shapes for hundreds of steps.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt's settings in malloc.h
_LARGE, _USUAL = 2**31 - 1, 128 * 1024
ONEDNN_CACHE = 256  # with as many, compiling again takes under 1 % of a step of the shipped model; with 64 it takes 5 %


def limit_onednn_cache() -> None:
    """Let oneDNN keep `ONEDNN_CACHE`, unless the environment says how many. It asks once, before its first product."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(ONEDNN_CACHE))


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

"""A user's own connection to a shared Java process: what breaks is named, what is held there is let go."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, Generic

from gentax.core.errors import EnvironmentFault
from gentax.domains.java.jvm import J, Shared
from gentax.domains.java.wire import Wire

CALL_LIMIT = 180.0  # seconds one call may take; the slowest, a gold path of ScienceWorld, takes about ten


class Link(Generic[J]):
    """A connection to the process of `shared`, started if need be. A package's own link makes its objects over it.

    One thread at a time may use a link; several links may be used at once.

    Raises:
        UsageError: there is no Java that runs.
        EnvironmentFault: the JVM died or does not answer. The link is closed then; make another.
    """

    def __init__(self, shared: Shared[J]) -> None:
        self._jvm = shared.acquire()
        self._pid = os.getpid()
        try:
            self._wire = Wire(self._jvm.port, self._jvm.token, CALL_LIMIT)
        except OSError:
            self._jvm.broken = True
            fate = self._jvm.fate()
            shared.release(self._jvm)
            raise EnvironmentFault(f"the Java process {fate}") from None
        self._held: list[Any] = []  # its objects in the JVM
        self._leave: list[Callable[[], None]] = []  # what else is to be done when it closes
        self._finalize = weakref.finalize(
            self, _hang_up, shared, self._jvm, self._wire, self._pid, self._held, self._leave
        )

    @property
    def process_id(self) -> int:
        """The process id of the JVM."""
        return self._jvm.process.pid

    @property
    def open(self) -> bool:
        """Whether calls can be made: not closed, and this is the process that made it."""
        return self._finalize.alive and self._pid == os.getpid()

    def close(self) -> None:
        """Drop the objects and the connection; the last one to close ends the JVM."""
        self._finalize()

    def guarded(self) -> _Guard:
        """Return a context that turns what goes wrong in it into an EnvironmentFault.

        Raises:
            EnvironmentFault: at once, when this link is closed.
        """
        if not self.open:
            raise EnvironmentFault("this simulator is closed: reset() starts another")
        return _Guard(self)

    def _broke(self, error: BaseException) -> EnvironmentFault | None:
        """Close, and return what to say instead of `error`, if anything."""
        if isinstance(error, TimeoutError):
            self._jvm.kill()  # a thread that never comes back would stay busy for as long as the process lives
            fate = f"the Java process gave no answer in {CALL_LIMIT:.0f} s"
        elif not isinstance(error, (OSError, ValueError)):
            # Java raised, or Ctrl-C: an answer still under way must not be taken for a later one.
            self.close()
            return None
        elif self._finalize.alive:
            fate = f"the Java process {self._jvm.fate()}"
        else:  # another thread closed this link meanwhile
            return EnvironmentFault("this simulator was closed")
        self._jvm.broken = True
        self.close()
        return EnvironmentFault(fate)


class _Guard:
    """Turns what goes wrong in its block into an EnvironmentFault."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and (fault := self._link._broke(error)) is not None:
            raise fault from None


def _hang_up(shared: Shared, jvm: Any, wire: Wire, pid: int, held: list[Any], leave: list[Callable[[], None]]) -> None:
    """Close a link: from `close`, when it is collected, or as Python ends."""
    if pid != os.getpid():
        return  # a forked child has copies of the files only; they go when it does
    wire.close(*held)
    for step in leave:
        step()
    shared.release(jvm)

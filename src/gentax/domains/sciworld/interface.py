"""One simulator of the package, in the shared JVM.

The package has one random generator for all its simulators: it is seeded when a task is loaded and drawn from as
bees fly and plants cross. Simulators that share it disturb each other, so that eight threads start one task in
fifteen differently. Hence shards: the package is loaded several times, by a class loader each, and every copy has its
own generator; within a shard one simulator moves at a time, and its moves are seeded by whoever makes them.
"""

from __future__ import annotations

import os
import weakref
from typing import Any

from gentax.core.errors import EnvironmentFault
from gentax.domains.sciworld import DOMAIN
from gentax.domains.sciworld.jvm import CALL_LIMIT, Jvm, Shard, acquire, release
from gentax.domains.sciworld.wire import Reference, Wire

CLASS = "scienceworld.runtime.pythonapi.PythonInterface"
RANDOM = "scala.util.Random$"  # the class of the generator that all of a shard's simulators share
SHARDS = DOMAIN.threads  # in which simulators move at once; each costs 50 MB and its own warming up


class Interface:
    """One simulator: a `PythonInterface` object of the package, with a connection of its own.

    One thread at a time may use it; several of them may be used at once.

    Raises:
        UsageError: there is no Java that runs.
        EnvironmentFault: the JVM died or does not answer. The interface is closed then; make another.
    """

    def __init__(self) -> None:
        self._jvm = acquire()
        self._pid = os.getpid()
        try:
            self._wire = Wire(self._jvm.port, self._jvm.token, CALL_LIMIT)
        except OSError:
            self._jvm.broken = True
            fate = self._jvm.fate()
            release(self._jvm, None)
            raise EnvironmentFault(f"the Java process {fate}") from None
        self._held: list[Any] = [None]  # its shard, then its objects in the JVM; shared with the finalizer
        self._finalize = weakref.finalize(self, _hang_up, self._jvm, self._wire, self._pid, self._held)
        with self._guarded():
            self._shard = _enter_shard(self._jvm, self._wire)
            self._held[0] = self._shard
            with self._shard.lock:
                self._server = self._wire.call(self._shard.simulator, "newInstance")
            self._held.append(self._server)

    @property
    def process_id(self) -> int:
        """The process id of the JVM."""
        return self._jvm.process.pid

    @property
    def open(self) -> bool:
        """Whether calls can be made: not closed, and this is the process that made it."""
        return self._finalize.alive and self._pid == os.getpid()

    def __call__(self, *calls: tuple[Any, ...], seed: int | None = None) -> list[Any]:
        """Do the calls, `(method, argument, …)` each, in order; return what each returned.

        Arguments are str, int or bool. Strings, numbers, booleans and None come back as such, lists as lists.
        `seed` sets the generator that the calls draw from; loading a task sets it by itself.
        """
        if not self.open:
            raise EnvironmentFault("this simulator is closed: reset() starts another")
        with self._guarded(), self._shard.lock:
            if seed is not None:
                self._wire.call(self._shard.random, "setSeed", seed)
            results = [self._wire.call(self._server, *call) for call in calls]
            return [self._wire.items(value) if isinstance(value, Reference) else value for value in results]

    def close(self) -> None:
        """Drop the simulator and its connection; the last one to close ends the JVM."""
        self._finalize()

    def _guarded(self) -> _Guard:
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
        else:  # another thread closed this interface meanwhile
            return EnvironmentFault("this simulator was closed")
        self._jvm.broken = True
        self.close()
        return EnvironmentFault(fate)


class _Guard:
    """Turns what goes wrong in its block into an EnvironmentFault."""

    def __init__(self, interface: Interface) -> None:
        self._interface = interface

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and (fault := self._interface._broke(error)) is not None:
            raise fault from None


def _enter_shard(jvm: Jvm, wire: Wire) -> Shard:
    """Return the least crowded shard, a new one while there are fewer than `SHARDS`, counting its new user."""
    with jvm.lock:
        if len(jvm.shards) < SHARDS and all(shard.users for shard in jvm.shards):
            from scienceworld.constants import JAR_PATH

            url = wire.call(wire.call(wire.make("java.io.File", JAR_PATH), "toURI"), "toURL")
            loader = wire.make("java.net.URLClassLoader", wire.array("java.net.URL", url))
            field = wire.call(wire.call(loader, "loadClass", RANDOM), "getField", "MODULE$")
            random = wire.call(field, "get", None)
            jvm.shards.append(Shard(wire.call(loader, "loadClass", CLASS), random))
        shard = min(jvm.shards, key=lambda shard: shard.users)
        shard.users += 1
        return shard


def _hang_up(jvm: Jvm, wire: Wire, pid: int, held: list[Any]) -> None:
    """Close an interface: from `close`, when it is collected, or as Python ends."""
    if pid != os.getpid():
        return  # a forked child has copies of the files only; they go when it does
    shard, *objects = held
    wire.close(*objects)
    release(jvm, shard)

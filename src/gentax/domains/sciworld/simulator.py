"""One simulator of the package, in the shared JVM.

The package has one random generator for all its simulators: it is seeded when a task is loaded and drawn from as
bees fly and plants cross. Simulators that share it disturb each other, so that eight threads start one task in
fifteen differently. Hence shards: the package is loaded several times, by a class loader each, and every copy has its
own generator; within a shard one simulator moves at a time, and its moves are seeded by whoever makes them.
"""

from __future__ import annotations

import threading
from typing import Any

from gentax.domains.java import Jvm, JvmConnection, Py4jClient
from gentax.domains.sciworld import DOMAIN, NAMES, SIMPLIFICATION

CLASS = "scienceworld.runtime.pythonapi.PythonInterface"
RANDOM = "scala.util.Random$"  # the class of the generator that all of a shard's simulators share
SHARDS = DOMAIN.threads  # in which simulators move at once; each costs 50 MB and its own warming up
SPLIT_METHODS = {"train": "getVariationsTrain", "validation": "getVariationsDev", "test": "getVariationsTest"}

OPTIONS = "-Xms512m -Xmx1g -Xmn384m -XX:+UseParallelGC -XX:+ExitOnOutOfMemoryError"
"""Of the JVM, unless GENTAX_JAVA_OPTS is set. A simulator holds 11 MB: there is room for the domain's 48 copies."""


class Shard:
    """One loading of the package into the JVM."""

    def __init__(self, wire: Py4jClient) -> None:
        from scienceworld.constants import JAR_PATH

        url = wire.call(wire.call(wire.make("java.io.File", JAR_PATH), "toURI"), "toURL")
        loader = wire.make("java.net.URLClassLoader", wire.array("java.net.URL", url))
        module = wire.call(wire.call(loader, "loadClass", RANDOM), "getField", "MODULE$")
        self.simulator = wire.call(loader, "loadClass", CLASS)  # the class of its simulators
        self.random = wire.call(module, "get", None)  # the generator they share
        self.lock = threading.Lock()  # held while one of its simulators moves
        self.users = 0


class SciWorldProcess(Jvm):
    """The package's Java process, and the shards in it."""

    def __init__(self) -> None:
        from scienceworld.constants import BASEPATH

        self.lock = threading.RLock()  # of `shards`
        self.shards: list[Shard] = []
        super().__init__(BASEPATH, OPTIONS)  # it has a file there, and would write one wherever else it is started

    def enter(self, wire: Py4jClient) -> Shard:
        """Return the least crowded shard, a new one while there are fewer than `SHARDS`, counting its new user."""
        with self.lock:
            if len(self.shards) < SHARDS and all(shard.users for shard in self.shards):
                self.shards.append(Shard(wire))
            shard = min(self.shards, key=lambda shard: shard.users)
            shard.users += 1
            return shard

    def leave(self, shard: Shard) -> None:
        """Take back one user of `shard`."""
        with self.lock:
            shard.users -= 1


class Simulator(JvmConnection[SciWorldProcess]):
    """One simulator: a `PythonInterface` object of the package, with a connection of its own (see `JvmConnection`)."""

    def __init__(self) -> None:
        super().__init__(SciWorldProcess)
        with self.guarded():
            self._shard = self._jvm.enter(self._client)
            self._cleanup.callback(self._jvm.leave, self._shard)
            with self._shard.lock:
                self._hold(self._client.call(self._shard.simulator, "newInstance"))

    def __call__(self, *calls: tuple[Any, ...], seed: int | None = None) -> list[Any]:
        """Do the calls, `(method, argument, …)` each, in order; return what each returned.

        Arguments are str, int or bool. `seed` sets the generator that the calls draw from; loading a task sets it by
        itself.
        """
        with self.guarded(), self._shard.lock:
            if seed is not None:
                self._client.call(self._shard.random, "setSeed", seed)
            return [self._call(*call) for call in calls]


def read_folds(server: Simulator) -> dict[str, dict[str, list[int]]]:
    """Ask the package for its folds: task name → split → [first variation, one past the last]."""
    folds: dict[str, dict[str, list[int]]] = {}
    for name in NAMES:
        server(("load", name, 0, SIMPLIFICATION, False))
        folds[name] = {}
        for split, method in SPLIT_METHODS.items():
            numbers = server((method,))[0]
            if numbers != list(range(numbers[0], numbers[-1] + 1)):
                raise ValueError(f"the {split} fold of {name} is no longer an unbroken range")
            folds[name][split] = [numbers[0], numbers[-1] + 1]
    return folds

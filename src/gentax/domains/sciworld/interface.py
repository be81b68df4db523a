"""One simulator in the shared JVM, and the little of py4j's protocol that it takes to talk to it.

Why not py4j's own client: it retries a dead server many times and logs every retry to the root logger. Here an
`Interface` has one socket of its own (so environments run in threads side by side) and turns whatever goes wrong into
`EnvironmentFault` at once. Calls are answered one by one: sent together they are ten times slower, since py4j's server
leaves Nagle's algorithm on and each answer then waits for the acknowledgement of the last.

Left out: callbacks, reflection, collections other than by their methods.
"""

from __future__ import annotations

import os
import socket
import weakref
from contextlib import suppress
from typing import Any

from py4j import protocol

from gentax.core.errors import EnvironmentFault
from gentax.domains.sciworld.jvm import CALL_LIMIT, Jvm, acquire, release

CLASS = "scienceworld.runtime.pythonapi.PythonInterface"


class Interface:
    """One simulator: a `PythonInterface` object of the package in the shared JVM, with a connection of its own.

    One thread at a time may use it; several of them may be used at once.

    Raises:
        UsageError: there is no Java that runs.
        EnvironmentFault: the JVM died or does not answer. The interface is closed then; make another.
    """

    def __init__(self) -> None:
        self._jvm = acquire()
        self._pid = os.getpid()
        try:
            self._socket = self._jvm.connect()
        except OSError as error:
            self._jvm.broken = True
            release(self._jvm)
            raise EnvironmentFault(f"the Java process refused a connection: {error}") from None
        self._lines = self._socket.makefile("rb")
        self._held: list[str] = []  # what the JVM keeps for this interface; shared with the finalizer
        self._finalize = weakref.finalize(self, _hang_up, self._jvm, self._socket, self._lines, self._pid, self._held)
        make = f"{protocol.CONSTRUCTOR_COMMAND_NAME}{CLASS}\n{protocol.END_COMMAND_PART}"
        self._id = self._exchange(self._jvm.password, make)[1]
        self._held.append(self._id)

    @property
    def process_id(self) -> int:
        """The process id of the JVM."""
        return self._jvm.process.pid

    @property
    def open(self) -> bool:
        """Whether calls can be made: not closed, the JVM runs, and this is the process that made it."""
        return self._finalize.alive and self._pid == os.getpid() and self._jvm.alive()

    def __call__(self, *calls: tuple[Any, ...]) -> list[Any]:
        """Do the calls, `(method, argument, …)` each, in order; return what each returned.

        Arguments are str, int or bool. Strings, numbers, booleans and None come back as such, lists as lists.
        """
        results = self._exchange(*(_command(self._id, *call) for call in calls))
        return [self._list(value) if isinstance(value, _Reference) else value for value in results]

    def close(self) -> None:
        """Drop the simulator and its connection; the last one to close ends the JVM."""
        self._finalize()

    def _list(self, reference: _Reference) -> list[Any]:
        (size,) = self._exchange(_command(reference, "size"))
        items = self._exchange(*(_command(reference, "get", i) for i in range(size)))
        self._exchange(_forget(reference))
        return items

    def _exchange(self, *commands: str) -> list[Any]:
        if not self._finalize.alive or self._pid != os.getpid():
            raise EnvironmentFault("this simulator is closed: reset() starts another")
        try:
            return [self._one(command) for command in commands]
        except TimeoutError:
            self._jvm.broken = True
            self._jvm.kill()  # a thread that never comes back would stay busy for as long as the process lives
            self.close()
            raise EnvironmentFault(f"the Java process gave no answer in {CALL_LIMIT:.0f} s") from None
        except (OSError, ValueError):  # ValueError: another thread closed this interface meanwhile
            mine = self._finalize.alive
            self._jvm.broken |= mine
            fate = f"the Java process {self._jvm.fate()}" if mine else "this simulator was closed"
            self.close()
            raise EnvironmentFault(fate) from None
        except BaseException:  # Ctrl-C among others: answers still under way must not be taken for later ones
            self.close()
            raise

    def _one(self, command: str) -> Any:
        self._socket.sendall(command.encode())
        line = self._lines.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("end of file")
        text = line[:-1].decode().removeprefix(protocol.RETURN_MESSAGE)
        if not text.startswith(protocol.SUCCESS):
            raise EnvironmentFault(f"the simulator failed: {self._reason(text)}")
        kind, value = text[1:2], text[2:]
        if kind in (protocol.VOID_TYPE, ""):
            return None
        if kind in (protocol.REFERENCE_TYPE, protocol.LIST_TYPE):
            return _Reference(value)
        convert = protocol.OUTPUT_CONVERTER.get(kind)
        if convert is None:
            raise EnvironmentFault(f"the simulator answered with something unknown: {text[:80]!r}")
        return convert(value, None)

    def _reason(self, text: str) -> str:
        """Return what a Java exception says of itself."""
        if text[1:2] != protocol.REFERENCE_TYPE:
            return _first_line(text[2:]) or "no reason given"
        self._held.append(text[2:])
        return _first_line(self._one(_command(text[2:], "toString")))


class _Reference(str):
    """The name of an object in the JVM."""


def _hang_up(jvm: Jvm, connection: socket.socket, lines: Any, pid: int, held: list[str]) -> None:
    """Close an interface: from `close`, when it is collected, or as Python ends."""
    if pid != os.getpid():
        return  # a forked child has copies of the files only; they go when it does
    with suppress(OSError):
        connection.sendall("".join(map(_forget, held)).encode())
        connection.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for an answer
    with suppress(OSError):
        lines.close()
        connection.close()
    release(jvm)


def _command(target: str, method: str, *arguments: Any) -> str:
    parts = "".join(protocol.get_command_part(argument) for argument in arguments)
    return f"{protocol.CALL_COMMAND_NAME}{target}\n{method}\n{parts}{protocol.END_COMMAND_PART}"


def _forget(target: str) -> str:
    return f"{protocol.MEMORY_COMMAND_NAME}{protocol.MEMORY_DEL_SUBCOMMAND_NAME}{target}\n{protocol.END_COMMAND_PART}"


def _first_line(text: str) -> str:
    return protocol.unescape_new_line(text).strip().split("\n")[0][:200]

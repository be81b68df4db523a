"""The little of py4j's protocol that it takes to use objects in a JVM: one socket, one command at a time.

Why not py4j's own client: it retries a dead server many times and logs every retry to the root logger. Commands are
answered one by one: sent together they are ten times slower, since py4j's server leaves Nagle's algorithm on and each
answer then waits for the acknowledgement of the last.

Left out: callbacks, reflection, collections other than by their methods.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from py4j import protocol

from gentax.core.errors import EnvironmentFault

_REFERENCES = (protocol.REFERENCE_TYPE, protocol.LIST_TYPE, protocol.ARRAY_TYPE)


class Reference(str):
    """The name of an object in the JVM."""

    __slots__ = ()


class Wire:
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

    def close(self, *held: Reference) -> None:
        """Let the objects `held` go, and the connection; wakes a thread that waits for an answer on it."""
        with suppress(OSError):
            self._socket.sendall("".join(map(_forget, held)).encode())
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

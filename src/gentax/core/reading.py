"""Read files that anybody may have written: within limits, and with one error that names the file and the line.

Refused are what Python's `json` takes and JSON does not have (NaN and infinity), a key that is given twice, values that
are nested deeper than anybody nests them, and files that unpack to more than the limits here.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gentax.core.errors import UsageError

JSON_LIMIT = 1 << 24  # bytes of a file of JSON that are read, unless a caller says otherwise
TEXT_LIMIT = 1 << 30  # bytes of a file of lines, unpacked; 10,000 long episodes have half of it
LINE_LIMIT = 1 << 24  # bytes of a line; an episode of 100 steps has a fiftieth of it
MAX_LINES = 1_000_000
MAX_DEPTH = 64  # of values in values
GZIP_MAGIC = b"\x1f\x8b"


def parse_json(text: str | bytes) -> Any:
    """Return the value that JSON says. Raises ValueError, with a message of one line, for what is refused here."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as fault:
        raise ValueError(f"line {fault.lineno}: {fault.msg}" if fault.lineno > 1 else fault.msg) from None
    _check_depth(value)
    return value


def read_json(path: str | Path, limit: int = JSON_LIMIT) -> Any:
    """Return the JSON value in a file.

    Raises:
        UsageError: no file, more than `limit` bytes, or no JSON (see above).
    """
    path = Path(path)
    text = read_text(path, limit)
    try:
        return parse_json(text)
    except ValueError as fault:
        raise UsageError(f"{path} cannot be read as JSON: {fault}") from None


def read_text(path: str | Path, limit: int = JSON_LIMIT) -> str:
    """Return the text of a file, which may be gzipped. Raises UsageError for more than `limit` bytes, or no text."""
    path = Path(path)
    with _opened(path) as file:
        content = file.read(limit + 1)
        if len(content) > limit:
            raise UsageError(f"{path} holds more than {limit >> 20} MB, which is all that is read")
        return content.decode("utf-8-sig")


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file, which may be gzipped, with their numbers, from 1 on; blank ones are left out.

    No more than a line is in memory.

    Raises:
        UsageError: no file, damage, no text, or more than the limits above.
    """
    path = Path(path)
    total = 0
    with _opened(path) as file:
        for number in range(1, MAX_LINES + 2):
            line = file.readline(LINE_LIMIT + 1)
            total += len(line)
            if len(line) > LINE_LIMIT:
                raise UsageError(
                    f"{path}, line {number}, is longer than {LINE_LIMIT >> 20} MB, which is all that is read"
                )
            if number > MAX_LINES or total > TEXT_LIMIT:
                raise UsageError(f"{path} holds more than {TEXT_LIMIT >> 20} MB or {MAX_LINES} lines; split it")
            if not line:
                return
            if text := line.decode("utf-8-sig" if number == 1 else "utf-8").strip():
                yield number, text


def first_character(path: str | Path) -> str:
    """Return the first character of a file, gzipped or not, that is no white space; "" where there is none near."""
    with _opened(Path(path)) as file:
        return file.read(1 << 12).decode("utf-8-sig", "ignore").lstrip()[:1]


def is_gzipped(path: Path) -> bool:
    """Return whether a file begins as gzipped ones do. Raises UsageError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(2) == GZIP_MAGIC
    except OSError as fault:
        raise UsageError(f"{path} cannot be read: {fault.strerror or fault}") from None


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, gzipped or not; what is wrong with it is an error that names it."""
    if not path.is_file():  # a folder, or a device that has no end
        raise UsageError(f"{path} is no file")
    packed = is_gzipped(path)
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            yield file  # type: ignore[misc]
    except EOFError:
        raise UsageError(f"{path} is cut short: its end is missing") from None
    except (gzip.BadGzipFile, zlib.error) as fault:
        raise UsageError(f"{path} is damaged: {fault}") from None
    except UnicodeDecodeError as fault:
        raise UsageError(f"{path} is damaged: it is not text in UTF-8 ({fault.reason})") from None
    except OSError as fault:
        raise UsageError(f"{path} cannot be read: {fault.strerror or fault}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:80]!r} is given twice")
    return made


def _refuse(name: str) -> float:
    raise ValueError(f"it holds {name}, which JSON does not have")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"it holds {text[:40]}, which is too large for a number")
    return number


def _check_depth(value: Any) -> None:
    """Raise ValueError where values are nested deeper than `MAX_DEPTH`."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [one for one in level if isinstance(one, (dict, list))]
        if not level:
            return
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")

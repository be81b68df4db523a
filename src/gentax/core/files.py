"""Files: written whole or not at all, locked by one process at a time, and read within limits.

What is written is written aside, flushed, then renamed. What is written aside is named after its process, so that what
a killed one left behind is recognized, and removed when the same thing is written again.

What is read may be anybody's: one error names the file and the line. Refused are what Python's `json` takes and JSON
does not have (NaN and infinity), a key that is given twice, values that are nested deeper than anybody nests them, and
files that unpack to more than the limits here.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import shutil
import socket
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gentax.core.errors import UsageError
from gentax.core.imports import require

JSON_LIMIT = 1 << 24  # bytes of a file of JSON that are read, unless a caller says otherwise
TEXT_LIMIT = 1 << 30  # bytes of a file of lines, unpacked; 10,000 long episodes have half of it
LINE_LIMIT = 1 << 24  # bytes of a line; an episode of 100 steps has a fiftieth of it
MAX_LINES = 1_000_000
MAX_DEPTH = 64  # of values in values
GZIP_MAGIC = b"\x1f\x8b"
LOG_LIMIT = 1 << 30  # bytes of a log, unpacked, which is read as a whole
GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a path to write to; it takes the name `path` when the block ends without an exception.

    A device or a pipe, such as `/dev/null` or `/dev/stdout`, is written to and never replaced; of a symbolic link, what
    it points to is replaced.
    """
    if _is_device(Path(path)):
        with tempfile.TemporaryDirectory() as folder:
            aside = Path(folder) / Path(path).name
            yield aside
            sys.stdout.flush()
            # Standard output is written through its own descriptor, whose position in a file is that of `print`.
            with open(os.dup(1) if str(path) == "/dev/stdout" else path, "ab") as device:
                device.write(aside.read_bytes())
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path))
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        _flush(aside)
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder; it takes the name `path`, replacing the folder that was there, when the block ends well.

    Raises:
        UsageError: `path` is there and is no folder.
    """
    path = Path(os.path.realpath(path))
    check_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path)))
    os.chmod(aside, 0o755)
    try:
        yield aside
        for file in aside.rglob("*"):
            if file.is_file():
                _flush(file)
        old = None
        if path.exists():
            # A rename cannot replace a folder that is not empty; the old one steps aside first.
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path)))
            os.replace(path, old / _OLD)
        os.replace(aside, path)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, whole or not at all. Raises ValueError on NaN or infinity, which JSON does not have."""
    with atomic_file(path) as aside:
        aside.write_text(json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def check_folder(path: str | Path) -> None:
    """Raise UsageError where `path`, or what it would be in, is there and is no folder."""
    path = Path(path)
    there = next((one for one in (path, *path.absolute().parents) if os.path.lexists(one)), path)
    if os.path.lexists(there) and not there.is_dir():
        raise UsageError(f"{there} is no folder" + ("" if there == path else f", so there can be no {path}"))


@contextmanager
def lock_folder(path: str | Path, doing: str) -> Iterator[None]:
    """Hold a folder, there or not, for this process while the block runs.

    The lock is a file beside the folder, locked in the kernel: it is free when its process dies, however it dies.

    Args:
        path: the folder.
        doing: what is done in it, for the error of whoever comes second, such as "training".

    Raises:
        UsageError: another process holds the folder, or `path` is there and is no folder.
    """
    from filelock import FileLock, Timeout

    path = Path(os.path.realpath(path))
    check_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        try:
            holder = file.read_text(encoding="utf-8")[:200] or "another process"
        except (OSError, UnicodeDecodeError):
            holder = "another process"
        raise UsageError(f"{doing} is in progress in {path}, by {holder}") from None
    try:
        file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is held: who has opened it sees that it is gone, and makes a new one
        lock.release()


_OLD = "old"  # the folder that was there, within one written aside


def _is_device(path: Path) -> bool:
    """Return whether a path is a device or a pipe. So is `/dev/stdout`, also where it leads to a file."""
    return path.exists() and not path.is_dir() and (not path.is_file() or path.absolute().parts[1] in ("dev", "proc"))


def _prefix(path: Path) -> str:
    return f".{path.name}.{_host()}-{os.getpid()}."


def _host() -> str:
    return re.sub(r"[^\w-]", "-", socket.gethostname())[:40]


def _remove_leftovers(path: Path) -> None:
    """Remove what processes of this machine that are dead wrote aside for `path`."""
    pattern = re.compile(re.escape(f".{path.name}.{_host()}-") + r"(\d+)\.\w+")
    for left in path.parent.iterdir():
        match = pattern.fullmatch(left.name)
        if match is None or _runs(int(match[1])):
            continue
        if (left / _OLD).is_dir() and not path.exists():  # it died between the two renames
            os.replace(left / _OLD, path)
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid)


def _flush(file: Path) -> None:
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())


def parse_json(text: str | bytes) -> Any:
    """Return the value that JSON says. Raises ValueError, with a message of one line, for what is refused here."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as fault:
        raise ValueError(f"line {fault.lineno}: {fault.msg}" if fault.lineno > 1 else fault.msg) from None
    check_nested(value)
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


def check_nested(value: Any, most: int | None = None) -> None:
    """Raise ValueError where values are nested deeper than `MAX_DEPTH`, or where there are more than `most` of them."""
    level, count = [value], 0
    for _ in range(MAX_DEPTH + 1):
        inner = [one for one in level if isinstance(one, (dict, list, tuple, set))]
        if not inner:
            return
        count += sum(map(len, inner))  # before they are listed: an alias in YAML may stand for thousands
        if most is not None and count > most:
            raise ValueError(f"it holds more than {most} values")
        level = [item for one in inner for item in (one.values() if isinstance(one, dict) else one)]
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def read_inspect_log(path: Path) -> list[dict[str, Any]]:
    """Return the samples of a log as plain values; each has an `id`, and its `scores` are by scorer.

    Raises:
        UsageError: no such file, one that is no log of Inspect, a packed one where inspect_ai is missing.
    """
    log = _read_packed(path) if path.suffix == ".eval" else read_json(path, LOG_LIMIT)
    samples = log.get("samples") if isinstance(log, dict) and "eval" in log else None
    if not isinstance(samples, list) or not all(isinstance(one, dict) and "id" in one for one in samples):
        raise UsageError(f"{path} is no log of Inspect: it has no list of 'samples' with an 'id' each")
    for sample in samples:
        scores = sample.setdefault("scores", None) or {}
        if not isinstance(scores, dict) or not all(isinstance(one, dict) for one in scores.values()):
            raise UsageError(f"{path}, sample {str(sample['id'])[:80]!r}: 'scores' must be a mapping")
        sample["scores"] = scores
    return samples


def _read_packed(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"{path} is no file")
    library = require("inspect_ai.log", f"{path}, a packed log of Inspect,")
    try:
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(one.file_size for one in packed.infolist())
        if unpacked <= LOG_LIMIT:
            return library.read_eval_log(str(path)).model_dump(mode="json")
    except Exception as fault:  # whatever the file makes of the reader
        raise UsageError(f"{path} cannot be read as a log of Inspect: {' '.join(str(fault).split())[:200]}") from None
    raise UsageError(f"{path} unpacks to more than {LOG_LIMIT >> 20} MB, which is all that is read")

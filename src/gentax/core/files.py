"""Files and folders that appear whole or not at all, and folders that one process at a time writes.

They are written aside, flushed, then renamed. What is written aside is named after its process, so that what a killed
one left behind is recognized, and removed when the same thing is written again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gentax.core.errors import UsageError


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

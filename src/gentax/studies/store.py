"""The folders of a study's stages. They appear whole, are never overwritten, and are checked before they are used.

    OUT/stages/FOLDER        evaluations and training runs, shared by all studies under OUT
    OUT/STUDY/FOLDER         reports
    OUT/stages/.FOLDER       a stage in progress (a stopped training run is continued in it)
    OUT/stages/damaged-…     what was found damaged and set aside
    OUT/running/FOLDER.*     the lock of a stage in progress, and how far it is

A stage is sealed by its last file, `stage.json`, which holds the SHA-256 of every other file and of itself. A file
whose size and time are those of the seal is taken to be intact until it is read; `check` hashes all of them.

Several processes, on one machine or on several with a shared file system, may work on one store: a stage in progress
is locked by its process (`fcntl.flock`, which the kernel releases when the process dies). Where a file system has no
locks, two processes may do the same stage; the first to finish is kept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import filelock

import gentax
from gentax.core import Episode, UsageError
from gentax.core.episode import read_episodes
from gentax.core.errors import StudyIncomplete
from gentax.core.files import read_json, write_json
from gentax.studies.plan import FORMAT, Plan, Stage

SEAL = "stage.json"
STAGES, RUNNING = "stages", "running"
MARKER = f"{STAGES}/store.json"  # says in which format the store is
LOOK = 0.2  # seconds in which a lock is tried: somebody who looks whether it is held holds it for an instant
HISTORY = 1000  # finished stages that say what the next ones take
NOTE = re.compile(r"(.+-[0-9a-f]{12})\.(lock|json|log|\d+\.tmp)")  # a file of `running`: the stage's folder, what it is
RUN_LOCK = re.compile(r"\.\.(.+-[0-9a-f]{12})\.lock")  # a file of `stages`: the lock of a training run's folder


class StageLocked(RuntimeError):
    """Another process is doing the stage."""


class DamagedStage(StudyIncomplete):
    """A file of a finished stage is not what was stored. `str` of it says which."""


class StoreUnavailable(OSError):
    """A store behind a URL does not answer, or refuses."""


@dataclass
class Store:
    """The stages under the folder `root`."""

    shared: ClassVar[bool] = False
    """Whether other machines see the stages wherever they are: the store is behind a URL."""
    root: Path
    _damaged: list[str] = field(default_factory=list, repr=False)  # what was set aside, in words
    _seals: dict[Path, tuple[tuple[int, int], dict[str, Any]]] = field(default_factory=dict, repr=False)
    _hashed: set[tuple[Path, int, int]] = field(default_factory=set, repr=False)  # files that are known to be intact

    def open(self) -> None:
        """Make the folder. Raises UsageError where it cannot be written."""
        if self.format() < FORMAT:
            self._write_marker({"format": FORMAT})

    def format(self) -> int:
        """Return the format that the store was last written in; 0 where there is none, or none that can be read.

        Raises:
            UsageError: a newer version of gentax wrote it.
            StoreUnavailable: there is no telling, as the store does not answer.
        """
        try:
            written_in = int(json.loads(self._read_marker())["format"])
        except StoreUnavailable:
            raise
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            written_in = 0
        if written_in > FORMAT:
            raise UsageError(f"{self} was written by a newer version of gentax; use that one, or another --out")
        return written_in

    def _read_marker(self) -> bytes:
        return (self.root / MARKER).read_bytes()

    def _write_marker(self, content: Mapping[str, int]) -> None:
        try:
            write_json(self.root / MARKER, content)
        except OSError as fault:
            raise UsageError(f"cannot write to {self.root}: {fault.strerror or fault}") from None

    def __str__(self) -> str:
        return str(self.root)

    def present(self) -> frozenset[str]:
        """Return the names of all folders of evaluations and training runs, hidden ones and damaged ones too."""
        folder = self.root / STAGES
        return frozenset(found.name for found in folder.iterdir()) if folder.is_dir() else frozenset()

    def path(self, stage: Stage) -> Path:
        """Return where a stage is on this machine when it is done."""
        return self.root / (stage.label if stage.kind == "report" else STAGES) / stage.folder

    def working_folder(self, stage: Stage) -> Path:
        """Return where a stage is made."""
        path = self.path(stage)
        return path.with_name(f".{path.name}")

    def has(self, stage: Stage, *, contents: bool = False) -> bool:
        """Return whether a stage is done and intact; a damaged one is set aside, to be done again.

        With `contents` all files are hashed, also those whose size and time are as they were.
        """
        if not os.path.lexists(self.path(stage) / SEAL):
            return False
        try:
            self._check(stage, contents=contents)
        except DamagedStage:
            return False
        return True

    def seal(self, stage: Stage) -> Mapping[str, Any]:
        """Return what `stage.json` of a finished stage says: `seconds`, `peak_memory`, `files`, `inputs` …

        Raises:
            DamagedStage: it is not there or is not as it was written.
        """
        return self._read_seal(self.path(stage))

    def check(self, stage: Stage, *names: str) -> Path:
        """Hash the files of a finished stage, or those whose names begin with one of `names`; return its folder.

        Raises:
            DamagedStage: a file is missing or is not what was stored. The stage was set aside.
        """
        self._check(stage, contents=True, names=names)
        return self.path(stage)

    def episodes(self, stage: Stage) -> list[Episode]:
        """Return the episodes of an evaluation. Raises DamagedStage."""
        return read_episodes(self.check(stage, "episodes"))

    def json(self, stage: Stage, name: str) -> Any:
        """Return the values of a JSON file of a finished stage. Raises DamagedStage."""
        return json.loads((self.check(stage, name) / name).read_text(encoding="utf-8"))

    def take_damaged(self) -> tuple[str, ...]:
        """Return what was found damaged and set aside since the last call, in words."""
        damaged, self._damaged = tuple(self._damaged), []
        return damaged

    def _set_aside(self, stage: Stage, why: str) -> None:
        """Rename a damaged stage, so that it is made again and somebody can look at it."""
        path = self.path(stage)
        for number in range(1, 1000):
            aside = path.with_name(f"damaged-{path.name}" + (f"-{number}" if number > 1 else ""))
            if not aside.exists():
                break
        try:
            path.rename(aside)
        except FileNotFoundError:
            return  # another process did it
        except OSError as fault:  # a store that may only be read
            note = f"{why}; it cannot be set aside: {fault.strerror or fault}"
        else:
            note = f"{why}; set aside as {aside.name}, and made again"
        if note not in self._damaged:
            self._damaged.append(note)

    def history(self) -> Iterator[tuple[Stage, Mapping[str, Any]]]:
        """Yield the latest stages that were done under the folder, of any study, with their seals."""
        found = {}
        for folder in (self.root / STAGES).glob("*-*"):
            if not folder.name.startswith((".", "damaged-")):
                with contextlib.suppress(OSError):  # another process has just set it aside
                    found[folder] = folder.stat().st_mtime
        for folder in sorted(found, key=found.__getitem__, reverse=True)[:HISTORY]:
            try:
                seal = self._read_seal(folder)
                yield Stage(seal["kind"], seal["label"], seal["inputs"]), seal
            except (DamagedStage, KeyError, TypeError):
                continue

    # Doing a stage.

    @contextmanager
    def lock(self, stage: Stage) -> Iterator[None]:
        """Hold a stage for this process. Raises StageLocked where another one does."""
        with _held(self.running(stage, "lock")):
            try:
                yield
            finally:
                if self.has(stage):
                    self.running(stage, "log").unlink(missing_ok=True)
                _clear(self.leftovers().get(stage.folder, ()))

    def leftovers(self) -> dict[str, list[Path]]:
        """Return locks and notes of stages in progress, by the stage's folder: when nobody holds them, of killed ones.

        A log stays until its stage is done.
        """
        found: dict[str, list[Path]] = {}
        for folder, pattern in ((RUNNING, NOTE), (STAGES, RUN_LOCK)):
            with contextlib.suppress(OSError):
                for name in os.listdir(self.root / folder):
                    match = pattern.fullmatch(name)
                    if match and (not name.endswith(".log") or any(self.root.glob(f"*/{match[1]}/{SEAL}"))):
                        found.setdefault(match[1], []).append(self.root / folder / name)
        return found

    def sweep(self) -> list[Path]:
        """Remove what killed processes left of stages that nobody does now; return it. What is held stays."""
        removed = []
        for folder, files in self.leftovers().items():
            lock = self.root / RUNNING / f"{folder}.lock"
            with contextlib.suppress(StageLocked, OSError), _held(lock):
                _clear([*files, lock])
                removed += [file for file in files if not file.exists()]
        return removed

    def locked(self, stage: Stage) -> bool:
        """Return whether a process is doing the stage now."""
        return _is_locked(self.running(stage, "lock"))

    def folder_locked(self, folder: Path) -> bool:
        """Return whether a process is doing the stage of a working folder."""
        return _is_locked(self.root / RUNNING / f"{folder.name.removeprefix('.')}.lock")

    def fresh_folder(self, stage: Stage) -> Path:
        """Return an empty folder to make a stage in, which `finish` is to be called on. The stage must be locked."""
        folder = self.working_folder(stage)
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
        folder.mkdir(parents=True)
        return folder

    def finish(self, stage: Stage, folder: Path, seconds: float, peak_memory: int | None) -> None:
        """Seal a working folder and give it its name. Of two processes that did a stage, the first one's stays.

        `peak_memory` is in bytes, of the process that did it; None where that is not known.
        """
        files = {}
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.name != SEAL:
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
                status = file.stat()
                files[file.relative_to(folder).as_posix()] = {
                    "sha256": _sha256(file),
                    "bytes": status.st_size,
                    "mtime_ns": status.st_mtime_ns,
                }
        content = {
            "format": FORMAT,
            "kind": stage.kind,
            "label": stage.label,
            "title": stage.title,
            "inputs": json.loads(json.dumps(stage.inputs)),
            "needs": [need.folder for need in stage.needs],
            "gentax": gentax.__version__,
            "host": socket.gethostname(),
            "seconds": round(seconds, 2),
            "peak_memory": peak_memory,
            "files": files,
        }
        write_json(folder / SEAL, {**content, "sha256": content_hash(content)})
        path = self.path(stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not (path / SEAL).exists():
            shutil.rmtree(path)  # never sealed: a folder that somebody copied in part
        try:
            folder.rename(path)
        except OSError as fault:
            if fault.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(folder, ignore_errors=True)

    # How far stages in progress are, for other processes to see.

    def running(self, stage: Stage, suffix: str) -> Path:
        return self.root / RUNNING / f"{stage.folder}.{suffix}"

    def progress(self, stage: Stage) -> Mapping[str, Any]:
        """Return `fraction`, `detail`, `pid` and `host` of a stage in progress; empty if nothing is known."""
        try:
            values = read_json(self.running(stage, "json"))
            return {
                "fraction": min(max(float(values["fraction"]), 0.0), 1.0),
                **{key: str(values[key]) for key in ("detail", "pid", "host")},
            }
        except (UsageError, TypeError, ValueError, KeyError):
            return {}

    def write_progress(self, stage: Stage, fraction: float, detail: str) -> None:
        """Say how far a stage is. It is only shown, so a disk that is full is not an error here."""
        values = {"fraction": fraction, "detail": detail, "pid": os.getpid(), "host": socket.gethostname()}
        file = self.running(stage, "json")
        aside = file.with_suffix(f".{os.getpid()}.tmp")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(values))
            aside.replace(file)
        except OSError:
            aside.unlink(missing_ok=True)

    # Checks.

    def _fetch(self, folder: Path, name: str) -> None:
        """Make sure that a file of a stage, which may be on another machine, is here."""

    def _check(self, stage: Stage, *, contents: bool, names: tuple[str, ...] = ()) -> None:
        try:
            self._check_files(self.path(stage), contents, names)
        except DamagedStage as fault:
            self._set_aside(stage, str(fault))
            raise

    def _check_files(self, path: Path, contents: bool, names: tuple[str, ...]) -> None:
        for name, expected in self._read_seal(path)["files"].items():
            if names and not name.startswith(names):
                continue
            file = path / name
            self._fetch(path, name)
            try:
                status = file.stat()
            except OSError:
                raise DamagedStage(f"{file} is missing") from None
            known = (file, status.st_size, status.st_mtime_ns)
            unchanged = known[1:] == (expected["bytes"], expected["mtime_ns"])
            if known in self._hashed or (unchanged and not contents):
                continue
            if status.st_size != expected["bytes"] or _sha256(file) != expected["sha256"]:
                raise DamagedStage(f"{file} is not what was stored (its SHA-256 differs)")
            self._hashed.add(known)

    def _read_seal(self, path: Path) -> dict[str, Any]:
        file = path / SEAL
        self._fetch(path, SEAL)
        try:
            status = file.stat()
            changed = (status.st_mtime_ns, status.st_size)
            known = self._seals.get(path)
            if known is not None and known[0] == changed:
                return known[1]
            text = file.read_text(encoding="utf-8")
        except OSError:
            raise DamagedStage(f"{file} cannot be read") from None
        except UnicodeDecodeError:
            raise DamagedStage(f"{file} is damaged") from None
        try:
            content = json.loads(text)
            stored = content.pop("sha256")
            intact = stored == content_hash(content)
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            intact = False
        if not intact:
            raise DamagedStage(f"{file} is not what was stored (its SHA-256 differs)")
        if not _lists_files(content.get("files")):
            raise DamagedStage(f"{file} is damaged (its `files` are no files of a stage)")
        self._seals[path] = (changed, content)
        return content


def unused_folders(plans: Iterable[Plan], store: Store) -> list[Path]:
    """Return the folders under a store that no stage of these studies uses and no process works in.

    They are stages of other settings or other code, work that was stopped, what was set aside as damaged, and earlier
    reports of the studies.
    """
    used: set[str] = set()
    folders = [*(store.root / STAGES).iterdir()] if store.present() else []
    for plan in plans:
        used |= {stage.folder for stage in plan.stages()}
        reports = store.path(plan.report).parent  # of this study alone: what else is there is not gentax's
        name = re.escape(plan.report.folder.rpartition("-")[0])
        own = re.compile(rf"(damaged-|\.)?{name}-[0-9a-f]{{12}}(-\d+)?")
        folders += [folder for folder in reports.glob("*") if own.fullmatch(folder.name)]
    return sorted(
        folder
        for folder in set(folders)
        if folder.is_dir() and folder.name.removeprefix(".") not in used and not store.folder_locked(folder)
    )


@contextmanager
def _held(file: Path) -> Iterator[None]:
    """Hold a lock. Its holder may remove the file: who waits for it sees that it is gone, and makes a new one.

    Raises:
        StageLocked: another process holds it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(file, timeout=LOOK)
    try:
        lock.acquire(poll_interval=LOOK / 20)
    except filelock.Timeout:
        raise StageLocked(file.stem) from None
    try:
        yield
    finally:
        lock.release()


def _clear(files: Iterable[Path]) -> None:
    """Remove files of a stage that this process holds; of a training run's lock only one that nobody holds."""
    for file in files:
        lock = _held(file) if RUN_LOCK.fullmatch(file.name) else contextlib.nullcontext()
        with contextlib.suppress(StageLocked), lock:
            file.unlink(missing_ok=True)


def _is_locked(file: Path) -> bool:
    """Return whether a process holds a lock. The look is a shared lock: those who look do not see each other."""
    try:
        with file.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # held; or there is no telling
        return True
    return False


def _lists_files(files: Any) -> bool:
    """Return whether a seal's `files` are names inside the stage's folder, each with what `finish` says of a file.

    Anybody who can write to a store can write a seal whose hash is right, and what it names is downloaded.
    """
    if not isinstance(files, Mapping):
        return False
    for name, said in files.items():
        path = PurePosixPath(name)
        inside = path.parts and not path.is_absolute() and ".." not in path.parts
        if not inside or str(path) != name or "\\" in name or not name.isprintable():
            return False
        if not isinstance(said, Mapping) or not {"sha256", "bytes", "mtime_ns"} <= said.keys():
            return False
    return True


def content_hash(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a seal says."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()

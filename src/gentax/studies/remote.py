"""A store behind a URL, such as `s3://bucket/runs`: any file system that fsspec knows.

Stages are made in a folder of this machine. When they are done they are uploaded aside (`stages/.FOLDER-…`), given
their name, and sealed: a folder without a seal is half of a stage, and is replaced. What a stage needs is downloaded
when it is read and checked against the seal. Such file systems have no locks, so two machines may do the same stage;
the first to finish is kept. A training run that is stopped is continued on its own machine alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gentax.core import UsageError
from gentax.core.files import atomic_file, check_folder
from gentax.studies.plan import FORMAT, Stage
from gentax.studies.store import HISTORY, MARKER, SEAL, STAGES, DamagedStage, Store


def open_store(out: str | Path | Store) -> Store:
    """Return the store at a folder or at a URL; a store that is open is returned as it is.

    Raises:
        UsageError: a file in place of the folder; a URL whose file system fsspec does not know or cannot open; a store
            of a newer version of gentax.
    """
    if isinstance(out, Store):
        return out
    store = _store_at(out)
    store.format()
    return store


def _store_at(out: str | Path) -> Store:
    text = str(out)
    if "://" not in text or text.startswith("file://"):
        root = Path(text.removeprefix("file://"))
        check_folder(root)
        return Store(root)
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(text)
    except (ImportError, ValueError, OSError) as fault:
        raise UsageError(f"cannot open {text}: {' '.join(str(fault).split())[:300]}") from None
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gentax" / "stores"
    root = cache / hashlib.sha256(text.encode()).hexdigest()[:16]
    return RemoteStore(root, url=text, files=files, remote_root=path)


@dataclass
class RemoteStore(Store):
    """A store whose stages are copied to and from another file system.

    Args:
        root: the folder of this machine.
        url: as the user gave it.
        files: the file system.
        remote_root: the folder in it.
    """

    url: str = ""
    files: Any = None
    remote_root: str = ""
    _uploaded: set[str] = field(default_factory=set, repr=False)

    @property
    def shared(self) -> bool:
        return True

    def open(self) -> None:
        write = self.format() < FORMAT
        super().open()
        if write:
            self.files.makedirs(f"{self.remote_root.rstrip('/')}/{STAGES}", exist_ok=True)
            self.files.pipe_file(self._remote(self.root / MARKER), (self.root / MARKER).read_bytes())

    def __str__(self) -> str:
        return self.url

    def _read_marker(self) -> bytes:
        content: bytes = self.files.cat_file(self._remote(self.root / MARKER))
        return content

    def present(self) -> frozenset[str]:
        try:
            found = self.files.ls(self._remote(self.root / STAGES), detail=False)
        except FileNotFoundError:
            found = []
        return super().present() | {str(path).rstrip("/").rpartition("/")[2] for path in found}

    def has(self, stage: Stage, *, contents: bool = False) -> bool:
        remote = self._remote(self.path(stage))
        if remote not in self._uploaded and not self.files.exists(f"{remote}/{SEAL}"):
            return False
        self._uploaded.add(remote)
        self._fetch(self.path(stage) / SEAL)
        if contents:
            return super().has(stage, contents=True)
        try:
            self.seal(stage)
        except DamagedStage as fault:
            self._set_aside(stage, str(fault))
            return False
        return True

    def finish(self, stage: Stage, folder: Path, seconds: float, peak_memory: int | None) -> None:
        super().finish(stage, folder, seconds, peak_memory)
        path = self.path(stage)
        remote = self._remote(path)
        aside = f"{self._aside(remote)}{uuid.uuid4().hex}"
        for name in self.seal(stage)["files"]:
            self.files.makedirs(f"{aside}/{name}".rpartition("/")[0], exist_ok=True)
            self.files.put_file(str(path / name), f"{aside}/{name}")
        if not self.files.exists(f"{remote}/{SEAL}"):
            if self.files.exists(remote):  # half of it, from an upload that was cut short
                self.files.rm(remote, recursive=True)
            self.files.mv(aside, remote, recursive=True)
            self.files.put_file(str(path / SEAL), f"{remote}/{SEAL}")
        for left in self.files.glob(f"{self._aside(remote)}*"):  # of killed uploads; one in progress finds the seal
            with contextlib.suppress(FileNotFoundError):
                self.files.rm(left, recursive=True)

    @staticmethod
    def _aside(remote: str) -> str:
        """Return how the names of a stage's unfinished uploads begin."""
        parent, _, name = remote.rpartition("/")
        return f"{parent}/.{name}-"

    def history(self) -> Iterator[tuple[Stage, Mapping[str, Any]]]:
        """Yield the latest stages of all machines, after fetching the seals that are not here yet."""
        names = [name for name in self.present() if not name.startswith((".", "damaged-")) and "-" in name]
        seals = [self.root / STAGES / name / SEAL for name in names]
        missing = {self._remote(file): file for file in seals if not file.exists()}
        for remote in list(missing)[HISTORY:]:
            del missing[remote]
        contents = self.files.cat(list(missing), on_error="omit") if missing else {}
        for remote, file in missing.items():
            if (content := contents.get(remote)) is not None:
                with atomic_file(file) as aside:
                    aside.write_bytes(content)
        yield from super().history()

    def _fetch(self, file: Path) -> None:
        if file.exists():
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError), atomic_file(file) as aside:  # what is missing, the check says
            self.files.get_file(self._remote(file), str(aside))

    def _set_aside(self, stage: Stage, why: str) -> None:
        remote = self._remote(self.path(stage))
        self._uploaded.discard(remote)
        parent, _, name = remote.rpartition("/")
        if self.files.exists(remote):
            self.files.mv(remote, f"{parent}/damaged-{name}", recursive=True)
        super()._set_aside(stage, why)

    def _remote(self, path: Path) -> str:
        return f"{self.remote_root.rstrip('/')}/{path.relative_to(self.root).as_posix()}"

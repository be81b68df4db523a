"""A store behind a URL, such as `s3://bucket/runs`: any file system that fsspec knows.

Stages are made in a folder of this machine. When one is done its files are uploaded into a folder of their own,
`stages/FOLDER/HASH`, and then its seal, `stages/FOLDER/stage.json`, whose hash that is. So what has a seal is whole: of
two machines that did a stage at once, one seal is kept, and files of an upload that was cut short are never read. Such
file systems have no locks, and S3 has no folders to rename.

What a stage needs is downloaded when it is read, and checked against the seal. A training run that is stopped is
continued on its own machine alone, and a stage that could not be uploaded is uploaded from there when the study is run
again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gentax.core import UsageError
from gentax.core.files import atomic_file, check_folder
from gentax.studies.plan import Stage
from gentax.studies.store import HISTORY, MARKER, SEAL, STAGES, DamagedStage, Store, StoreUnavailable, content_hash


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
    """A store whose stages are copied to and from another file system; `root` is a folder of this machine."""

    shared = True
    url: str = ""  # as the user gave it
    files: Any = None  # the file system
    remote_root: str = ""  # the folder in it
    _sealed: set[str] = field(default_factory=set, repr=False)

    def __str__(self) -> str:
        return self.url

    def _read_marker(self) -> bytes:
        content: bytes = self._call("cat_file", self._remote(self.root / MARKER))
        return content

    def _write_marker(self, content: Mapping[str, int]) -> None:
        remote = self._remote(self.root / MARKER)
        self._call("makedirs", remote.rpartition("/")[0], exist_ok=True)
        self._call("pipe_file", remote, json.dumps(content).encode())

    def present(self) -> frozenset[str]:
        try:
            found = self._call("ls", self._remote(self.root / STAGES), detail=False)
        except FileNotFoundError:
            found = []
        return super().present() | {str(path).rstrip("/").rpartition("/")[2] for path in found}

    def has(self, stage: Stage, *, contents: bool = False) -> bool:
        if not self._is_sealed(stage):
            return False
        self._fetch(self.path(stage), SEAL)
        if contents:
            return super().has(stage, contents=True)
        try:
            self.seal(stage)
        except DamagedStage as fault:
            self._set_aside(stage, str(fault))
            return False
        return True

    def _is_sealed(self, stage: Stage) -> bool:
        if stage.folder not in self._sealed and self._call("exists", self._remote(self.path(stage), SEAL)):
            self._sealed.add(stage.folder)
        return stage.folder in self._sealed

    @contextmanager
    def lock(self, stage: Stage) -> Iterator[None]:
        with super().lock(stage):
            if not self._is_sealed(stage) and super().has(stage):  # done here when the store could not be reached
                self._upload(stage)
            yield

    def finish(self, stage: Stage, folder: Path, seconds: float, peak_memory: int | None) -> None:
        super().finish(stage, folder, seconds, peak_memory)
        self._upload(stage)

    def _upload(self, stage: Stage) -> None:
        path = self.path(stage)
        kept = self._kept_seal(stage)
        if kept is None:
            for name in self.seal(stage)["files"]:
                self._put(path / name, self._remote(path, name))
            kept = self._kept_seal(stage)
        if kept is None:
            self._put(path / SEAL, self._remote(path, SEAL))
        elif kept != (path / SEAL).read_bytes():  # another machine was first: what it did is fetched when it is read
            aside = path.with_name(f".{path.name}.{os.getpid()}")  # gone at once: nobody finds half of it
            path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)

    def _kept_seal(self, stage: Stage) -> bytes | None:
        """Return the seal that the store has of a stage now, if it has one."""
        try:
            content: bytes = self._call("cat_file", self._remote(self.path(stage), SEAL))
        except FileNotFoundError:
            return None
        return content

    def history(self) -> Iterator[tuple[Stage, Mapping[str, Any]]]:
        """Yield the latest stages of all machines, after fetching the seals that are not here yet."""
        names = [name for name in self.present() if not name.startswith((".", "damaged-")) and "-" in name]
        seals = [self.root / STAGES / name / SEAL for name in names]
        missing = {self._remote(file.parent, SEAL): file for file in seals if not file.exists()}
        for remote in list(missing)[HISTORY:]:
            del missing[remote]
        contents = self._call("cat", list(missing), on_error="omit") if missing else {}
        for remote, file in missing.items():
            if (content := contents.get(remote)) is not None:
                with atomic_file(file) as aside:
                    aside.write_bytes(content)
        yield from super().history()

    def _set_aside(self, stage: Stage, why: str) -> None:
        seal = self._remote(self.path(stage), SEAL)
        with contextlib.suppress(FileNotFoundError):
            if self._kept_seal(stage) == (self.path(stage) / SEAL).read_bytes():  # not what another machine did
                self._call("cp_file", seal, seal.replace(SEAL, f"damaged-{SEAL}"))
                self._call("rm_file", seal)
        self._sealed.discard(stage.folder)
        super()._set_aside(stage, why)

    # The file system.

    def _remote(self, folder: Path, name: str = "") -> str:
        """Return where a file of a finished stage is, or a folder of the store."""
        remote = f"{self.remote_root.rstrip('/')}/{folder.relative_to(self.root).as_posix()}"
        if name and name != SEAL:
            remote += f"/{content_hash(self._read_seal(folder))[:12]}"
        return f"{remote}/{name}".rstrip("/")

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of the file system, whose libraries raise what they like.

        Raises:
            FileNotFoundError: there is no such file.
            StoreUnavailable: it does not answer, or refuses.
        """
        self.files.invalidate_cache()  # of listings, which other machines change
        try:
            return getattr(self.files, method)(*args, **options)
        except FileNotFoundError:
            raise
        except Exception as fault:
            if isinstance(fault, OSError) and fault.errno == errno.ENOSPC:
                raise
            why = " ".join(str(fault).split())[:300] or type(fault).__name__
            raise StoreUnavailable(f"{self.url} cannot be used now: {why}") from fault

    def _fetch(self, folder: Path, name: str) -> None:
        file = folder / name
        if file.exists():
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError), atomic_file(file) as aside:  # what is missing, the check says
            self._call("get_file", self._remote(folder, name), str(aside))

    def _put(self, file: Path, remote: str) -> None:
        self._call("makedirs", remote.rpartition("/")[0], exist_ok=True)
        self._call("put_file", str(file), remote)

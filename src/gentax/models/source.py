"""Resolve what a model's name means: the shipped base, a folder, a hub id, an adapter's folder or a GGUF file.

Nothing here loads PyTorch. The hub is asked only for a model that is not in its cache. `fingerprint` hashes a model's
files.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gentax.core import UsageError
from gentax.core.errors import nearest
from gentax.models.checkpoint_check import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    INDEX_FILE,
    WEIGHTS_FILE,
    error_line,
    read_json,
)
from gentax.models.options import ModelOptions

BASE = Path(__file__).parent / "base"  # the model that ships with the package
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
DOWNLOADED = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]  # weights, configuration, tokenizer
NOT_DOWNLOADED = ["*/*", "consolidated*"]  # other formats of the same weights
BASE_OPTION = "--adapter-base (to train it: base_model_name_or_path in its adapter_config.json)"
OTHER_SUFFIXES = (".json", ".jsonl", ".gz", ".gguf", ".safetensors", ".yaml", ".yml", ".txt", ".py")  # `runs/x.gguf`
HUB_TIMEOUT_S = 5  # for the hub to answer whether it has a model


@dataclass(frozen=True)
class ModelSource:
    """Where a model is."""

    name: str  # as given
    kind: str  # "folder", "adapter" or "gguf"
    path: Path  # the folder, or the GGUF file
    base: ModelSource | None = None  # an adapter's base

    @property
    def label(self) -> str:
        """The name in reports: `base`, a hub id, or the last part of a path."""
        if self.path == BASE:
            return "base"
        return self.name if self._from_hub else self.path.resolve().name

    @property
    def _from_hub(self) -> bool:
        return is_hub_id(self.name) and not _exists(self.name)

    @property
    def origin(self) -> dict[str, str]:
        """What results record to find the same weights again.

        The commit of a hub model (`revision`), and an adapter's base (`adapter_base`).
        """
        record = {}
        if self._from_hub:
            record["revision"] = self.path.name  # the snapshot's folder in the hub's cache
        if self.base is not None:
            record["adapter_base"] = self.base.name
            record |= {f"adapter_base_{key}": value for key, value in self.base.origin.items()}
        return record


def find_model(where: str | Path | ModelSource, options: ModelOptions = ModelOptions()) -> ModelSource:
    """Resolve `where`; a hub model that is not in the cache is downloaded.

    Args:
        where: `base`, a folder, `org/name[@revision]`, or a `.gguf` file; a ModelSource is returned as it is.
        options: `adapter_base` names an adapter's base where its configuration does not or is wrong;
            `trust_remote_code` downloads a model's Python files as well.

    Raises:
        UsageError: there is no such model; the message has the nearest name, or the command that downloads it.
    """
    if isinstance(where, ModelSource):
        return where
    text = str(where)
    if not text.strip():
        raise UsageError(f"a model has no name {text!r}: it is 'base', a folder, a hub name or a .gguf file")
    if text == "base":
        return ModelSource(text, "folder", BASE)
    if _exists(text):
        path = Path(where)
        if path.is_dir():
            return _folder(path, text, options)
        if path.suffix.lower() == ".gguf":
            return ModelSource(text, "gguf", path)
        raise UsageError(f"{text} is a file; a model is a folder, a hub name or a .gguf file")
    if is_hub_id(text):
        local = Path(text.partition("/")[0]).is_dir()  # `runs/x`, where `runs` is a folder, is a slip in a path
        if (cached := _cached(text, options)) is not None:
            return _folder(cached, text, options)
        if not local:
            return _folder(_fetch(text, options), text, options)
        raise UsageError(f"{_no_model(text)}; if the hub has it, `hf download {_parts(text)[0]}` fetches it")
    raise UsageError(_no_model(text))


def is_hub_id(text: str) -> bool:
    """Return whether `text` has the form `org/name` or `org/name@revision`."""
    return _HUB.fullmatch(text) is not None and ".." not in text and not text.endswith(OTHER_SUFFIXES)


def may_name_model(where: str | Path) -> bool:
    """Return whether `find_model` might find `where`, without asking the hub."""
    return str(where) == "base" or _exists(str(where)) or is_hub_id(str(where))


def is_here(where: str | Path) -> bool:
    """Return whether a model is on this machine: `base`, a folder or file, or a hub model that is in the cache."""
    text = str(where)
    return text == "base" or _exists(text) or (is_hub_id(text) and _cached(text, ModelOptions()) is not None)


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # a name too long for a path, or with a NUL in it
        return False


def _folder(path: Path, name: str, options: ModelOptions) -> ModelSource:
    if (path / ADAPTER_CONFIG).exists():
        return ModelSource(name, "adapter", path, _base_of(path, name, options))
    if not (path / "config.json").exists():
        ggufs = sorted(p.name for p in path.glob("*.gguf"))
        hint = f"; did you mean {path / ggufs[0]}?" if ggufs else ""
        raise UsageError(f"{name} is not a model folder: it has no config.json{hint}")
    return ModelSource(name, "folder", path)


def _base_of(path: Path, name: str, options: ModelOptions) -> ModelSource:
    """Find an adapter's base model."""
    if not (path / ADAPTER_WEIGHTS).exists():
        raise UsageError(f"{name} is an adapter without {ADAPTER_WEIGHTS}; gentax reads no other format of weights")
    if (path / WEIGHTS_FILE).exists() or (path / INDEX_FILE).exists():
        raise UsageError(f"{name} holds both an adapter and a whole model; keep one of them there")
    base: Any = options.adapter_base or read_json(path / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise UsageError(f"{name} is an adapter that does not say which model it is for; name it with {BASE_OPTION}")
    inside = path / base  # the path may be relative to the adapter
    try:
        base_source = find_model(str(inside) if not _exists(base) and _exists(str(inside)) else base, options)
    except UsageError as error:
        raise UsageError(
            f"{name} is an adapter for {base[:200]!r}, which is not there: {error}; {BASE_OPTION} names another"
        ) from None
    if base_source.kind == "adapter":
        raise UsageError(f"{name} is an adapter for {base[:200]!r}, which is an adapter itself; merge that one first")
    return base_source


def _cached(name: str, options: ModelOptions) -> Path | None:
    """Return the folder of a hub model that is complete in the cache."""
    from huggingface_hub import snapshot_download

    repo, revision = _parts(name)
    try:
        path = Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        return None
    return path if _complete(path) else None


def _complete(path: Path) -> bool:
    if (path / ADAPTER_CONFIG).exists():
        return (path / ADAPTER_WEIGHTS).exists()
    if not (path / INDEX_FILE).exists() or (path / WEIGHTS_FILE).exists():
        return (path / "config.json").exists() and (path / WEIGHTS_FILE).exists()
    files = read_json(path / INDEX_FILE).get("weight_map")
    return isinstance(files, dict) and all((path / str(file)).exists() for file in set(map(str, files.values())))


def _fetch(name: str, options: ModelOptions) -> Path:
    """Download a hub model into its cache: safetensors, configuration and tokenizer."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    repo, revision = _parts(name)
    command = f"hf download {repo}" + (f" --revision {shlex.quote(revision)}" if revision else "")
    lacking = f"{name} is no folder here and not in the hub's cache"
    if constants.HF_HUB_OFFLINE:
        raise UsageError(f"{lacking}, and HF_HUB_OFFLINE is set; without it, `{command}` fetches it")
    try:
        info = HfApi().model_info(repo, revision=revision, timeout=HUB_TIMEOUT_S)
        files = [file.rfilename for file in info.siblings or ()]
        if not any(file.endswith(".safetensors") and "/" not in file for file in files):
            gguf = next((file for file in files if file.endswith(".gguf")), None)
            hint = f"; `hf download {repo} {gguf}` fetches a GGUF file that can be named" if gguf else ""
            raise UsageError(f"{name} has no .safetensors file; gentax reads no other format of weights{hint}")
        allowed = [*DOWNLOADED, "*.py"] if options.trust_remote_code else DOWNLOADED
        return Path(snapshot_download(repo, revision=revision, allow_patterns=allowed, ignore_patterns=NOT_DOWNLOADED))
    except UsageError:
        raise
    except RepositoryNotFoundError:  # gated ones included
        why = "the hub has no such model, or none that you have access to (see `hf auth login`)"
        raise UsageError(f"{lacking}, and {why}") from None
    except Exception as error:  # a network fails in the ways of whatever HTTP client the hub's package uses
        why = error_line(error)
        raise UsageError(
            f"{lacking}, and cannot be fetched ({why}); where there is a network, `{command}` fetches it"
        ) from None


def _parts(name: str) -> tuple[str, str | None]:
    repo, _, revision = name.partition("@")
    return repo, revision or None


def _no_model(text: str) -> str:
    shown = f"{text[:200]!r}"
    try:
        parent = Path(text).parent
        near = [str(p.parent) for p in sorted(parent.glob("*/*config.json"))] + [str(p) for p in parent.glob("*.gguf")]
    except (OSError, ValueError):
        near = []
    close = nearest(text, [*near, "base"])
    kind = "GGUF file" if text.lower().endswith(".gguf") else "model folder"
    return f"no {kind} {shown}" + (f"; did you mean {close!r}?" if close else "; 'base' always works")


HASHED_SUFFIXES = (".json", ".safetensors", ".jinja", ".txt", ".model", ".py")  # weights, settings, tokenizer, code
NOT_HASHED = ("record.json", "evaluation.json")  # written by gentax about a model


def fingerprint(model: str | Path, options: ModelOptions = ModelOptions()) -> str:
    """Return a hash of a model's weights, configuration and tokenizer, wherever they are; or of any single file.

    An adapter's hash covers its own files and its base's hash.

    Raises:
        UsageError: there is no such model or file.
    """
    if Path(model).is_file():
        return _hash([Path(model)])
    return _of(find_model(model, options))


def _of(source: ModelSource) -> str:
    if source.kind == "gguf":
        return _hash([source.path])
    files = sorted(
        p for p in source.path.glob("*") if p.is_file() and p.suffix in HASHED_SUFFIXES and p.name not in NOT_HASHED
    )
    return _hash(files, "" if source.base is None else _of(source.base))


def _hash(files: Sequence[Path], more: str = "") -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as handle:
            hashlib.file_digest(handle, lambda: digest)
    digest.update(more.encode())
    return digest.hexdigest()[:16]

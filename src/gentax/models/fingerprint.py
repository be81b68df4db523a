"""Which weights a policy has: a hash of a model's files, the same wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from gentax.models.requests import ModelOptions
from gentax.models.source import Source, find

KINDS = (".json", ".safetensors", ".jinja", ".txt", ".model", ".py")  # weights, configuration, tokenizer, own code
OURS = ("record.json", "evaluation.json")  # what gentax writes beside a model about it
CHUNK = 1 << 22  # bytes read at once: weights may be larger than memory


def fingerprint(model: str | Path, options: ModelOptions = ModelOptions()) -> str:
    """Return a hash of a model's weights, configuration and tokenizer; or of any single file.

    A model of the hub has that of the folder it is cached in, a GGUF file its own. An adapter's is made of its own
    files and of its base's hash.

    Raises:
        UsageError: there is neither.
    """
    if Path(model).is_file():
        return _hash([Path(model)])
    return _of(find(model, options))


def _of(source: Source) -> str:
    if source.kind == "gguf":
        return _hash([source.path])
    files = sorted(p for p in source.path.glob("*") if p.is_file() and p.suffix in KINDS and p.name not in OURS)
    return _hash(files, "" if source.base is None else _of(source.base))


def _hash(files: Sequence[Path], more: str = "") -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as handle:
            while block := handle.read(CHUNK):
                digest.update(block)
    digest.update(more.encode())
    return digest.hexdigest()[:16]

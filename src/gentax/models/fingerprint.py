"""Which weights a policy has: a hash of a model folder, the same wherever the folder lies."""

from __future__ import annotations

import hashlib
from pathlib import Path

KINDS = (".json", ".safetensors", ".jinja", ".txt", ".model")  # weights, configuration, tokenizer
OURS = ("record.json", "evaluation.json")  # what gentax writes beside a model about it
CHUNK = 1 << 22  # bytes read at once: weights may be larger than memory


def fingerprint(model: str | Path) -> str:
    """Return a hash of a model folder's weights, configuration and tokenizer, or of a single file.

    Raises:
        UsageError: there is neither.
    """
    from gentax.models.loading import BASE, model_folder

    folder = BASE if str(model) == "base" else Path(model)
    files = [folder]
    if not folder.is_file():
        files = sorted(p for p in folder.glob("*") if p.suffix in KINDS)
        if not any(p.suffix == ".safetensors" for p in files):
            model_folder(model)  # its error says what is wrong with the folder
    digest = hashlib.sha256()
    for file in files:
        if file.name not in OURS:
            digest.update(file.name.encode() + b"\0")
            with file.open("rb") as handle:
                while block := handle.read(CHUNK):
                    digest.update(block)
    return digest.hexdigest()[:16]

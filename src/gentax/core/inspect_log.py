"""Read the logs that Inspect writes: JSON by ourselves, the packed form (`.eval`) by its own package."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from gentax.core.errors import UsageError
from gentax.core.imports import require
from gentax.core.reading import read_json

LOG_LIMIT = 1 << 30  # bytes of a log, unpacked, which is read as a whole
GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


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
    library = require("inspect_ai.log", f"{path}, a packed log of Inspect,", "gentax[inspect]")
    try:
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(one.file_size for one in packed.infolist())
        if unpacked <= LOG_LIMIT:
            return library.read_eval_log(str(path)).model_dump(mode="json")
    except Exception as fault:  # whatever the file makes of the reader
        raise UsageError(f"{path} cannot be read as a log of Inspect: {' '.join(str(fault).split())[:200]}") from None
    raise UsageError(f"{path} unpacks to more than {LOG_LIMIT >> 20} MB, which is all that is read")

"""Files for a person to read: JSON with a value or a row on each line, and safe quotes from what others wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gentax.core.files import whole_file


def write_lines(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, whole or not at all. Raises ValueError on NaN or infinity, which JSON does not have."""
    with whole_file(path) as aside:
        aside.write_text(_lines(value, "") + "\n", encoding="utf-8")


def harmless(text: str, limit: int = 300) -> str:
    """Return `text`, at most `limit` characters, with those that a terminal would not show as they are escaped."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _lines(value: Any, indent: str) -> str:
    inner = indent + " "
    if isinstance(value, dict) and value:
        rows = [f"{inner}{_flat(key)}: {_lines(one, inner)}" for key, one in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return "[\n" + ",\n".join(inner + _flat(one) for one in value) + f"\n{indent}]"
    return _flat(value)


def _flat(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)

"""Text that a model or an environment wrote, made safe to read: nothing in it is invisible or turns other text round.

Escaping for HTML is the template engine's work (autoescape); this is about characters that survive escaping.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

# Control, format (bidirectional overrides, zero width, tags), lone surrogates, line and paragraph separators.
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def visible(text: str) -> str:
    """Return `text` with every character that shows nothing, or reorders others, written out.

    Newlines and tabs stay. (Unicode has pictures of control characters, but few fonts do.)

    >>> visible("a\\x00b\\u202ec")
    'a⟨U+0000⟩b⟨U+202E⟩c'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in UNSEEN else f"⟨U+{ord(c):04X}⟩" for c in text)


def one_line(text: str, limit: int = 80) -> str:
    """Return visible `text` on one line of at most `limit` characters."""
    line = " ".join(visible(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def tied(text: str) -> str:
    """Return `text` with percent signs that no line break can part from their number."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def dotted(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten nested settings to (dotted key, value as text)."""
    rows = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += dotted(value, f"{prefix}{key}.")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            rows.append((f"{prefix}{key}", shown))
    return rows


def duration(seconds: float) -> str:
    """Write a time for a person.

    >>> duration(42), duration(754), duration(9000)
    ('42 s', '12 min 34 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

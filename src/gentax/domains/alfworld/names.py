"""What the engine calls things: the kind and a number, such as "desk 1"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def named(ids: Iterable[str]) -> dict[str, str]:
    """Return the name of each thing by its id in the PDDL; of each kind the last in order is number 1."""
    ids = sorted(ids)
    left = Counter(_kind(id) for id in ids)
    names = {}
    for id in ids:
        kind = _kind(id)
        names[id] = f"{kind} {left[kind]}"
        left[kind] -= 1
    return names


def _kind(id: str) -> str:
    kind, bar, _ = id.partition("_bar_")
    return f"{kind}basin" if bar and "basin" in id else kind

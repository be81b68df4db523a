"""Sokoban: things that stand at coordinates outside the room. max(1, ⌊volume/10⌋) lines, as in arXiv 2601.18217."""

from __future__ import annotations

import re
from functools import lru_cache
from random import Random

from gentax.wrappers.generators.scene import Scene, appended, one

THINGS = ("urn", "ladder", "statue", "lantern", "anvil", "bench", "fountain")
LOOKS = ("mossy", "cracked", "painted", "dusty", "leaning")
BEYOND = 9  # rows and columns outside the room that are spoken of
UNKNOWN = 100  # rows that a room of unknown size is taken to have
_NUMBER = re.compile(r"\d{1,4}")


def write(scene: Scene, volume: int, rng: Random) -> str:
    side = _side(scene.goal) or _side(scene.observation) or UNKNOWN
    things = [thing for thing in THINGS if scene.free(thing)]
    lines = []
    for _ in range(max(1, volume // 10) if things else 0):
        row, column = side + int(rng.random() * BEYOND), int(rng.random() * (side + BEYOND))
        lines.append(f"A {one(rng, LOOKS)} {one(rng, things)} stands out of reach at {row},{column}.")
    return appended(scene.observation, lines)


@lru_cache(64)
def _side(text: str) -> int:
    """Return a number of rows (or columns) that the room is sure not to exceed, given a text that says its size."""
    return max((int(number) + 1 for number in _NUMBER.findall(text)), default=0)

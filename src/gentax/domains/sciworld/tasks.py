"""Which variation of which of the package's tasks a (level, split, index) is. Needs no JVM.

The folds are the package's own, stored in `folds.json` (made by `build.py folds`, compared with the package by a
test). Order: each task's variations are shuffled with a fixed seed and the tasks interleaved in proportion to how
many they have, so that any prefix of a split is a fair sample of it, and so is an index drawn at random.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from gentax.core.task import stable_seed
from gentax.domains.sciworld.levels import names_of

SIMPLIFICATION = "easy"  # teleport, open doors and containers, plants that water themselves, no wiring


class Variation(NamedTuple):
    """One of the package's tasks, as the package counts them."""

    name: str
    number: int


def turn_seed(variation: Variation, turn: int) -> int:
    """Return what the simulator's generator is seeded with before the given turn of an episode."""
    return stable_seed("sciworld", *variation, turn) >> 16


@cache
def folds() -> Mapping[str, Mapping[str, tuple[int, int]]]:
    """Return task name → split → (first variation, one past the last). The package's folds are unbroken ranges."""
    stored = json.loads((files(__package__) / "folds.json").read_text(encoding="utf-8"))
    return {
        name: {split: (start, stop) for split, (start, stop) in splits.items()}
        for name, splits in stored["folds"].items()
    }


@cache
def variations(level: str, split: str) -> tuple[Variation, ...]:
    """Return the variations of `level` in `split`, in the order of their indices."""
    placed = []
    for name in names_of(level):
        start, stop = folds()[name][split]
        numbers = np.random.default_rng(stable_seed("sciworld", name, split)).permutation(np.arange(start, stop))
        # The i-th of n stands at (i + 1/2) / n of the way; the name breaks ties, alike on every machine.
        placed += [((i + 0.5) / len(numbers), name, int(number)) for i, number in enumerate(numbers)]
    return tuple(Variation(name, number) for _, name, number in sorted(placed))

"""Things that lie about: to be read, and of no use. They change neither the recipes nor what an action does."""

from __future__ import annotations

import random
from collections.abc import Callable

from gentax.core.task import stable_seed
from gentax.domains.crafting.words import CLAUSES, CLUTTER, LOOKS


def clutter(things: int, words: int, seed: int) -> str:
    """Return a sentence on `things` things of `words` words each; "" for none.

    The generator is not the one the recipes are drawn with, so that either dial leaves the other alone.
    """
    if not things:
        return ""
    draw = random.Random(stable_seed("crafting clutter", seed)).random
    return f"Lying about: {'; '.join([_thing(words, draw) for _ in range(things)])}."


def _thing(words: int, draw: Callable[[], float]) -> str:
    """Return a noun, as many clauses of three words as fit after a look, and looks for the rest."""
    clauses = max(0, words - 2) // 3
    looks = [LOOKS[int(draw() * len(LOOKS))] for _ in range(words - 1 - 3 * clauses)]
    noun = CLUTTER[int(draw() * len(CLUTTER))]
    tail = [CLAUSES[int(draw() * len(CLAUSES))] for _ in range(clauses)]
    return " ".join([*looks, noun, *tail])

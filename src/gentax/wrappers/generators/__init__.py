"""The generators of distracting text, one a file, and which domain has which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from gentax.core.errors import unknown
from gentax.wrappers.generators import alfworld, babyai, crafting, generic, sciworld, sokoban, twx, webshop
from gentax.wrappers.generators.scene import Scene

KINDS = ("contextual", "generic")


@dataclass(frozen=True)
class Generator:
    """One way to distract. `write(scene, volume, rng)` returns the observation with its text in it."""

    name: str
    write: Callable[[Scene, int, Random], str]
    volume: int  # the usual one
    asks: bool = True
    """Whether the admissible actions are looked at on every step. Not where they are always the same few words, which
    the generator's own avoid, nor where listing them takes longer than a step, as in ScienceWorld."""


GENERIC = Generator("generic", generic.write, 200, asks=False)
CONTEXTUAL = {
    entry.name: entry
    for entry in (
        Generator("sokoban", sokoban.write, 80, asks=False),  # the paper's volume, as the next two
        Generator("webshop", webshop.write, 30),
        Generator("alfworld", alfworld.write, 300),
        Generator("sciworld", sciworld.write, 60, asks=False),
        Generator("crafting", crafting.write, 60),
        Generator("babyai", babyai.write, 60, asks=False),
        Generator("twx", twx.write, 60),
    )
}


def generator(domain: str, kind: str) -> Generator:
    """Return the generator for a domain; those called `FAMILY-GAME` share their family's. Raises UsageError."""
    if kind not in KINDS:
        raise unknown("kind of distractors", kind, KINDS)
    if kind == "generic":
        return GENERIC
    return CONTEXTUAL.get(domain) or CONTEXTUAL.get(domain.partition("-")[0], GENERIC)

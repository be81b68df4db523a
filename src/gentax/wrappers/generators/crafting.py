"""Crafting: recipes overheard, of things nobody can make here. max(1, ⌊volume/20⌋) lines."""

from __future__ import annotations

from random import Random

from gentax.wrappers.generators.scene import Scene, a, appended, one

THINGS = (
    "clockwork bird", "kaleidoscope", "weather vane", "music stand", "paper dragon", "accordion", "sextant",
    "spinning top", "marionette", "hourglass", "music box", "barometer",
)  # fmt: skip
PARTS = ("cogs", "corks", "velvet strips", "pearls", "wax seals", "ribbons", "hinges", "lenses", "tassels", "springs")


def write(scene: Scene, volume: int, rng: Random) -> str:
    parts = [part for part in PARTS if scene.free(part.removesuffix("s"))]
    lines = []
    for _ in range(max(1, volume // 20) if parts else 0):
        thing = scene.draw(rng, THINGS)
        if thing is not None:
            number = 2 + int(rng.random() * 7)
            lines.append(f"A traveller tells of {a(thing)} made from {number} {one(rng, parts)} in another land.")
    return appended(scene.observation, lines)

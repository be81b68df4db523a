"""BabyAI: things glimpsed outside the maze, none of a kind or colour it has. max(1, ⌊volume/20⌋) sentences."""

from __future__ import annotations

from random import Random

from gentax.wrappers.generators.scene import Scene, a, one, scattered

THINGS = ("harp", "tent", "bicycle", "windmill", "kettle", "scarecrow", "piano", "sledge", "well", "puppet", "flag")
LOOKS = ("wooden", "rusty", "silent", "tiny", "enormous", "old", "snow-covered", "striped", "wobbly")
REMARKS = (
    "Through a crack you glimpse {} outside.",
    "Someone once drew {} here.",
    "You daydream of {}.",
    "Outside, out of reach, there is {}.",
)


def write(scene: Scene, volume: int, rng: Random) -> str:
    drawn = [scene.draw(rng, THINGS) for _ in range(max(1, volume // 20))]
    lines = [one(rng, REMARKS).format(a(f"{one(rng, LOOKS)} {thing}")) for thing in drawn if thing is not None]
    return scattered(rng, scene.observation, lines)

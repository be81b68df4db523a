"""BabyAI: things glimpsed outside the maze, none of a kind or colour it has. max(1, ⌊volume/20⌋) sentences."""

from __future__ import annotations

from random import Random

from gentax.wrappers.generators.scene import Scene, remarked

THINGS = ("harp", "tent", "bicycle", "windmill", "kettle", "scarecrow", "piano", "sledge", "well", "puppet", "flag")
LOOKS = ("wooden", "rusty", "silent", "tiny", "enormous", "old", "snow-covered", "striped", "wobbly")
REMARKS = (
    "Through a crack you glimpse {} outside.",
    "Someone once drew {} here.",
    "You daydream of {}.",
    "Outside, out of reach, there is {}.",
)


def write(scene: Scene, volume: int, rng: Random) -> str:
    return remarked(rng, scene, max(1, volume // 20), THINGS, LOOKS, REMARKS)

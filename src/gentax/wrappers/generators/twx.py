"""TextWorldExpress: sounds and sights from far away, shared by all its games. max(1, ⌊volume/20⌋) sentences."""

from __future__ import annotations

from random import Random

from gentax.wrappers.generators.scene import Scene, remarked

THINGS = (
    "tram", "church bell", "foghorn", "lawnmower", "accordion", "brass band", "woodpecker", "ferry", "hot-air balloon",
    "street sweeper", "choir", "sailing boat", "weather vane", "fairground organ",
)  # fmt: skip
LOOKS = ("distant", "lonely", "old", "slow", "cheerful", "famous", "tired", "invisible")
REMARKS = (
    "Somewhere far away there is {}.",
    "You think of {}.",
    "A poster advertises {}.",
    "Nobody else seems to notice {} in the distance.",
)


def write(scene: Scene, volume: int, rng: Random) -> str:
    return remarked(rng, scene, max(1, volume // 20), THINGS, LOOKS, REMARKS)

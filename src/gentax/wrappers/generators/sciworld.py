"""ScienceWorld: furnishings that the simulator does not have. max(1, ⌊volume/20⌋) lines among the others."""

from __future__ import annotations

from random import Random

from gentax.wrappers.generators.scene import Scene, remarked

THINGS = (
    "calendar", "doormat", "umbrella", "curtain", "coat rack", "chandelier", "lampshade", "wicker chair", "tapestry",
    "doorbell", "hat stand", "wallpaper", "letter opener", "ashtray", "footstool", "cuckoo clock",
)  # fmt: skip
LOOKS = ("faded", "crooked", "old-fashioned", "dusty", "striped", "forgotten", "well-kept", "frayed", "ornate")
REMARKS = (
    "There seems to be {}, but it is only painted on the wall.",
    "A photograph on the wall shows {}.",
    "You remember {} from another house.",
    "Through the window, far off, you make out {}.",
)


def write(scene: Scene, volume: int, rng: Random) -> str:
    return remarked(rng, scene, max(1, volume // 20), THINGS, LOOKS, REMARKS)

"""ALFWorld: everyday objects with trivial looks, anywhere in the text. ⌊volume/12⌋ sentences, as in arXiv 2601.18217.

An object whose kind is in the scene gets a number that none of its kind has; one that the goal names is never used.
"""

from __future__ import annotations

import re
from random import Random

from gentax.wrappers.generators.scene import Scene, a, one, scattered

THINGS = (
    "mug", "ladle", "saucer", "teapot", "colander", "whisk", "grater", "corkscrew", "strainer", "skillet",
    "jar", "basket", "tin", "crate", "bucket", "canister", "pitcher", "flask", "tray", "hamper",
    "napkin", "apron", "dishcloth", "tea towel", "oven glove", "doily", "handkerchief", "rag",
)  # fmt: skip
LOOKS = (
    "worn", "stained", "warm", "labelled", "chipped", "faded", "damp", "spotless", "dented", "polished",
    "crumpled", "scratched", "dusty", "patterned", "borrowed", "heavy", "small", "plain", "folded",
)  # fmt: skip
PLACES = ("lies about", "has been left here", "is in plain sight", "catches your eye")


def write(scene: Scene, volume: int, rng: Random) -> str:
    things = [thing for thing in THINGS if scene.goal_words.isdisjoint(thing.split())]
    sentences = []
    for _ in range(volume // 12 if things else 0):
        thing = one(rng, things)
        numbers = [int(n) for n in re.findall(rf"\b{thing} (\d{{1,6}})", scene.named)] if thing in scene.named else []
        fresh = f" {max(numbers, default=0) + 1 + int(rng.random() * 9)}" if thing in scene.named else ""
        sentences.append(f"{a(f'{one(rng, LOOKS)} {thing}{fresh}').capitalize()} {one(rng, PLACES)}.")
    return scattered(rng, scene.observation, sentences)

"""WebShop: advertisements, products that cannot be had, facts that do not matter (counts as in arXiv 2601.18217).

A page of results gets max(1, ⌊volume/30⌋) advertisements and max(1, ⌊volume/10⌋), at most ten, products that say they
cannot be selected; a product's page max(1, ⌊volume/25⌋) facts and max(1, ⌊volume/30⌋) advertisements; other pages
nothing. The paper does not give the first two counts.
"""

from __future__ import annotations

import re
from random import Random

from gentax.wrappers.generators.scene import Scene, appended, one

CATEGORIES = (
    "garden hoses", "piano lessons", "roof tiles", "canoe trips", "dog walking", "beekeeping", "car washes",
    "window cleaning", "folk dancing", "house plants", "train tickets", "crosswords", "pottery courses", "sailing",
    "tax advice", "language lessons", "bird watching", "chimney sweeping", "chess clubs", "camp sites", "model trains",
)  # fmt: skip
SLOGANS = (
    "now closer than ever", "ask your neighbour", "a smile is included", "since the old days", "because it is Monday",
    "you have waited long enough", "simply better", "made with patience", "for people like you", "why not today",
    "what a surprise", "the talk of the town", "once more with feeling", "rain or shine", "nothing to lose",
    "good to the last detail", "all year round", "by friends for friends", "step by step", "see for yourself",
)  # fmt: skip
PRODUCTS = (
    "birdhouse", "weather vane", "sundial", "rocking chair", "umbrella stand", "doorbell", "kite", "xylophone",
    "wheelbarrow", "mailbox", "globe", "metronome", "telescope", "abacus", "snow globe",
)  # fmt: skip
LOOKS = (
    "antique", "patented", "signed", "oversized", "refurbished", "limited", "travel", "festive", "nautical",
    "illuminated", "miniature", "musical", "numbered", "collectible", "weatherproof",
)  # fmt: skip
FACTS = (
    "The parcel has a barcode on one side.", "The page was last proofread on a Tuesday.",
    "The manual is stapled twice.", "The carton can be recycled.", "The photographs were taken indoors.",
    "The warehouse has a new floor.", "The label is printed in two languages.", "The invoice comes by post.",
    "The seller keeps a tidy desk.", "The packing list has one line.", "The stock was counted in spring.",
    "The tape on the carton is transparent.",
)  # fmt: skip
PRODUCT = re.compile(r"buy now")
RESULTS = re.compile(r"\bresults?\b|\bpage \d|\bnext\b|\bprev")


def write(scene: Scene, volume: int, rng: Random) -> str:
    count = max(1, volume // 30)
    if PRODUCT.search(scene.named):
        facts = [one(rng, FACTS) for _ in range(max(1, volume // 25))]
        return appended(scene.observation, facts + _advertisements(scene, count, rng))
    if RESULTS.search(scene.named):
        lines = _advertisements(scene, count, rng)
        for _ in range(min(10, max(1, volume // 10))):
            look, product = scene.draw(rng, LOOKS), scene.draw(rng, PRODUCTS)
            if look is not None and product is not None:
                lines.append(f"{look.capitalize()} {product} (sold out, cannot be selected)")
        return appended(scene.observation, lines)
    return scene.observation


def _advertisements(scene: Scene, count: int, rng: Random) -> list[str]:
    drawn = [scene.draw(rng, CATEGORIES) for _ in range(count)]
    return [f"Advertisement: {category}, {one(rng, SLOGANS)}!" for category in drawn if category is not None]

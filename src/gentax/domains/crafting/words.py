"""The words that things are called by. A material, a product and a thing to be read never share a noun."""

from __future__ import annotations


def _words(text: str) -> list[str]:
    return text.split()


# What can be got.
SOURCES = _words("oak birch cedar willow river cave marsh hill meadow forest desert winter")
MATERIALS = _words("log clay reed stone fibre resin sand ore moss bark flint wool")

# What recipes make.
KINDS = _words("plain woven carved bound polished hollow double narrow heavy curved folded pressed")
PRODUCTS = _words("plank rod rope brick cord frame hook panel wheel mallet basket lantern ladder bell shield cart")

# What lies about, and what there is to say of it.
LOOKS = _words("old worn dusty chipped faded cracked stained dented dull warm damp spotless rusty crooked tiny")
CLUTTER = _words("jug plate candle scarf mirror bucket pillow brush kettle coin letter vase stool comb flute")
CLAUSES = [
    "beside the door",
    "under the window",
    "on a shelf",
    "near the stairs",
    "with no label",
    "with two scratches",
    "smelling of smoke",
    "covered in cobwebs",
    "left by someone",
    "wrapped in paper",
    "facing the wall",
    "half in shadow",
    "of little use",
    "below a painting",
    "tied with string",
]

"""How well a purchase meets a goal: the published WebShop reward (arXiv 2207.01206, section 3.2 and its code).

    score = type * (attributes met + options met + price met) / (attributes + options + 1)

Left out: the part-of-speech tagger. Where the published code finds the nouns of a title with it, a generated product
knows its own, and of an official title `title_nouns` takes what is neither number nor function word nor attribute.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from rapidfuzz import fuzz
from rapidfuzz.utils import default_process

from gentax.domains.webshop.product import Goal, Product

ALIKE = 85  # a `token_set_ratio` above it is a match
_COLOR = re.compile(
    r"\b(black|white|gray|grey|red|orange|yellow|green|blue|purple|violet|pink|brown|beige|gold|silver|ivory)\b"
)
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_FUNCTION = re.compile(r"a|an|and|as|at|by|for|from|in|is|it|of|on|or|our|the|to|with|your")


def score(product: Product, goal: Goal, chosen: Mapping[str, str]) -> float:
    """Return how well buying `product` with the `chosen` options meets `goal`, from 0 to 1."""
    kind = type_score(product, goal.product)
    if kind == 0:
        return 0.0
    text = f"{product.title} {' '.join(product.features)} {product.description}".lower()
    attributes = sum(any(alike(own, asked) for own in product.attributes) or asked in text for asked in goal.attributes)
    values = [_color(value) for value in chosen.values()]
    options = sum(any(alike(value, _color(asked)) for value in values) for asked in goal.options)
    met = attributes + options + (product.price <= goal.limit)
    return kind * met / (len(goal.attributes) + len(goal.options) + 1)


def type_score(product: Product, wanted: Product) -> float:
    """Return 1 for the kind of thing that was wanted, less the less the titles have in common: 0.5, 0.1 or 0."""
    shared = len(wanted.nouns & product.nouns) / len(wanted.nouns) if wanted.nouns else 0.2
    if shared == 0:
        return 0.0
    if shared < 0.1:
        return 0.1
    same_category = len(set(product.category) & set(wanted.category)) >= 2
    return 1.0 if product.query == wanted.query or same_category or shared > 0.2 else 0.5


def alike(one: str, other: str) -> bool:
    """Whether two short texts mean the same: one's words hold the other's, or the letters are nearly equal."""
    return one == other or fuzz.token_set_ratio(one, other, processor=default_process) > ALIKE


def title_nouns(title: str, attributes: Iterable[str]) -> frozenset[str]:
    """Return the words of a title that are likely to say what the product is."""
    return frozenset(_words(title) - {word for text in attributes for word in _words(text)})


def _words(text: str) -> set[str]:
    return {word for word in _LETTERS.findall(text.lower()) if not _FUNCTION.fullmatch(word)}


def _color(value: str) -> str:
    """Return the plain colour in a value such as "dark red"; the value itself when there is none."""
    found = _COLOR.search(value.lower())
    return found[0] if found else value.lower()

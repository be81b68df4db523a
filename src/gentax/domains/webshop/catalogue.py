"""The generated shop: products of every department, the same on every machine, made once in a process.

A catalogue depends on its size and on the length of its texts only, never on a task.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

from gentax.core.task import stable_seed
from gentax.domains.webshop.index import Index
from gentax.domains.webshop.product import Product
from gentax.domains.webshop.words import BRANDS, DEPARTMENTS, FILLERS, PRAISE, USES

SEED = 1  # whoever changes it changes every task
ATTRIBUTES = 4  # of a product; its title names the first `TITLED`
TITLED = 2
Draw = Callable[[], float]


class Catalogue:
    """Products, found by their code or by a search. The index is built when it is first needed."""

    def __init__(self, products: Sequence[Product]) -> None:
        self.products = products
        self.by_code = {product.code.lower(): number for number, product in enumerate(products)}

    @cached_property
    def index(self) -> Index:
        return Index(map(_indexed, self.products))


@cache
def generated(size: int, long: bool) -> Catalogue:
    """Return the shop of `size` products, with long texts or short ones."""
    draw = random.Random(stable_seed("webshop catalogue", SEED, size, long)).random
    return Catalogue([_product(number, size, long, draw) for number in range(size)])


def choose(options: Sequence[Any], draw: Draw) -> Any:
    """Return one of `options`."""
    return options[int(draw() * len(options))]


def sample(options: Sequence[Any], count: int, draw: Draw) -> list[Any]:
    """Return `count` different members of `options` in a drawn order."""
    left = list(options)
    for i in range(count):  # the beginning of a Fisher-Yates shuffle
        j = i + int(draw() * (len(left) - i))
        left[i], left[j] = left[j], left[i]
    return left[:count]


def _product(number: int, size: int, long: bool, draw: Draw) -> Product:
    department = choose(DEPARTMENTS, draw)
    kind = choose(list(department.aisles), draw)
    attributes = tuple(sample(department.attributes, ATTRIBUTES, draw))
    options = {}
    for name, values in department.options.items():
        offered = set(sample(values, 1 + len(values) // 2, draw))
        options[name] = tuple(value for value in values if value in offered)
    # Never a multiple of ten, as limits are: "under 40" and "at most 40" then mean the same.
    dollars = 10 * int(draw() * 9) + 1 + int(draw() * 9)
    category = (department.name, department.aisles[kind], kind)
    write = _long if long else _short
    price, tag, code, texts = write(number, size, kind, attributes, dollars, draw)
    return Product(code, texts[0], kind, frozenset((kind,)), category, price, tag, attributes, options, *texts[1:])


def _short(number: int, size: int, kind: str, attributes: tuple[str, ...], dollars: int, draw: Draw):
    use, praise = choose(USES, draw), choose(PRAISE, draw)
    title = f"{' '.join(attributes[:TITLED])} {kind}"
    code = f"b{number:0{len(str(size - 1))}}"
    return float(dollars), f"${dollars}", code, (title, f"For {use}.", attributes, (f"{praise}.",), "N.A.")


def _long(number: int, size: int, kind: str, attributes: tuple[str, ...], dollars: int, draw: Draw):
    brand, use, other = choose(BRANDS, draw), choose(USES, draw), choose(USES, draw)
    price = dollars + (0.99, 0.49, 0.95)[int(draw() * 3)] - 1
    said = [f"{word} {kind}" for word in attributes[:TITLED]]
    title = f"{brand.title()} {said[0].title()} for {use.title()}, {attributes[1].title()}, Fits {other.title()}"
    fill = sample(FILLERS, 6, draw)
    description = f"The {brand} {kind} is made for {use} and does as well for {other}. {' '.join(fill[:4])}"
    features = (
        *(f"{word.upper()}: a {word} {kind}, as our customers asked for it." for word in attributes),
        *(f"{brand.upper()} SERVICE: {line}" for line in fill[4:]),
    )
    reviews = tuple(
        f"{3 + int(draw() * 3)} stars. {choose(PRAISE, draw).capitalize()}. I use the {kind} for {choose(USES, draw)}."
        for _ in range(3)
    )
    # A code like those of the real shop. The factor is odd and no multiple of 5, so that no two are equal.
    code = f"b0{(number * 7_368_787 + 4_194_301) % 100_000_000:08}"
    rating = f"{3 + int(draw() * 20) / 10:.1f}"
    return price, f"${price:.2f}", code, (title, description, features, reviews, rating)


def _indexed(product: Product) -> str:
    """Return the text a search looks at: what a customer can read on the product's pages, but for reviews."""
    options = " ".join(value for values in product.options.values() for value in values)
    return f"{product.title} {product.query} {product.description} {' '.join(product.features)} {options}"

"""What is sold and what is wanted. Everything else in this folder makes, finds, shows or compares these two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Product:
    """One product. Texts that are compared (attributes, options, query) are in small letters."""

    code: str
    title: str
    query: str  # the words it is filed under
    nouns: frozenset[str]  # the words of its title that say what it is
    category: tuple[str, ...]  # from the department down
    price: float  # dollars
    tag: str  # the price as shown
    attributes: tuple[str, ...]  # never shown as such; some are in the title, all in the features
    options: Mapping[str, tuple[str, ...]]
    description: str
    features: tuple[str, ...]
    reviews: tuple[str, ...] = ()
    rating: str = "N.A."


@dataclass(frozen=True, slots=True)
class Goal:
    """What an instruction asks for."""

    text: str
    product: Product  # one that has it all; another that has it all is as good
    attributes: tuple[str, ...]
    options: tuple[str, ...]  # values
    limit: float  # dollars

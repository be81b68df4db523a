"""The generated shop's goals, and the score of a purchase.

Two hashes decide the split, and both must agree: that of the product (its kind, attributes and options), and that of
what is asked (kind, attributes, options). So no product of a test goal is the product of a train goal, and no two
splits ask for the same, at whatever level and at no other price either.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping

from gentax.core.env import content_hash, split_of
from gentax.domains.webshop import LONGEST, LevelSpec
from gentax.domains.webshop.expert import expert_action
from gentax.domains.webshop.shop import TITLED, Catalogue, Draw, Goal, Product, Session, alike, choose, sample

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


def title_nouns(title: str, attributes: Iterable[str]) -> frozenset[str]:
    """Return the words of a title that are likely to say what the product is."""
    return frozenset(_words(title) - {word for text in attributes for word in _words(text)})


def _words(text: str) -> set[str]:
    return {word for word in _LETTERS.findall(text.lower()) if not _FUNCTION.fullmatch(word)}


def _color(value: str) -> str:
    """Return the plain colour in a value such as "dark red"; the value itself when there is none."""
    found = _COLOR.search(value.lower())
    return found[0] if found else value.lower()


WON = 1 - 1e-9  # a score from here on is a success
THRIFT = 5  # products drawn for a goal; the cheapest is asked for
UNLIMITED = 1_000_000.0  # the price limit of a goal that names none, as published
WORDINGS = (
    "I am looking for {attributes} {kind} in {options}, and price lower than {limit} dollars",
    "Please find {kind}, {attributes}, {options}. I do not want to pay more than {limit} dollars",
    "My old {kind} broke. I need new {kind}: {attributes}, {options}, below {limit} dollars",
    "With {limit} dollars at most to spend, get me {attributes} {kind}. I want it in {options}",
)


def sample_goal(catalogue: Catalogue, spec: LevelSpec, split: str, seed: int, per_page: int) -> Goal:
    """Return the goal that `seed` stands for: one of `split` that the expert meets in `LONGEST` steps."""
    draw = random.Random(seed).random
    while True:
        goal = _draw(catalogue, spec, draw)
        if splits_of(goal) == {split} and _can_be_met(catalogue, goal, per_page):
            return goal


def splits_of(goal: Goal) -> set[str]:
    """Return the splits that the product and what is asked belong to, whatever the wording and the price limit."""
    asked = goal.product.query, sorted(goal.attributes), sorted(goal.options)
    return {split_of(content_of(goal.product)), split_of(content_hash("webshop goal", *asked))}


def content_of(product: Product) -> str:
    """Return the hash of what a product is, alike in every catalogue."""
    options = sorted((name, sorted(values)) for name, values in product.options.items())
    return content_hash("webshop product", product.query, sorted(product.attributes), options)


def price_limit(price: float, draw: Draw) -> float:
    """Return the larger of two of the four multiples of ten dollars above `price`, as published; at most 990."""
    steps = [10.0 * n for n in range(1, 100) if 10.0 * n > price][:4]
    return max(sample(steps, 2, draw)) if len(steps) >= 2 else UNLIMITED


def _draw(catalogue: Catalogue, spec: LevelSpec, draw: Draw) -> Goal:
    # The cheapest of a few: a limit above a dear product's price would rule out nothing, and need no reading.
    product = min((choose(catalogue.products, draw) for _ in range(THRIFT)), key=lambda product: product.price)
    named, rest = product.attributes[:TITLED], product.attributes[TITLED:]
    # The first is in the title; the others may have to be looked up.
    first = choose(named, draw)
    others = sample([word for word in (*named, *rest) if word != first], spec.attributes - 1, draw)
    groups = sample(list(product.options), spec.options, draw)
    wanted = {name: choose(product.options[name], draw) for name in product.options if name in groups}
    limit = price_limit(product.price, draw)
    attributes = (first, *others)
    if spec.hardness == "hard":
        text = choose(WORDINGS, draw).format(
            attributes=" and ".join(attributes),
            kind=product.query,
            options=" and ".join(wanted.values()),
            limit=f"{limit:.2f}" if spec.long else f"{limit:.0f}",
        )
    else:
        options = "".join(f", {name} {value}" for name, value in wanted.items())
        text = f"Buy {' '.join(attributes)} {product.query}{options}, under {limit:.0f} dollars"
    return Goal(f"{text}.", product, attributes, tuple(wanted.values()), limit)


def _can_be_met(catalogue: Catalogue, goal: Goal, per_page: int) -> bool:
    session = Session(catalogue, per_page)
    for _ in range(LONGEST):
        move = expert_action(session, goal)
        if move is None:
            return False
        verb, _, rest = move.action[:-1].partition("[")
        done = session.search(rest) if verb == "search" else session.click(rest)
        assert done, move.action
        if session.bought:
            return score(session.product, goal, session.chosen) >= WON
    return False

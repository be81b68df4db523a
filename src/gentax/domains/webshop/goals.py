"""The goals of the generated shop and of the official one, the score of a purchase, and the expert.

In the generated shop two hashes decide the split, and both must agree: that of the product (its kind, attributes and
options), and that of what is asked (kind, attributes, options). So no product of a test goal is the product of a train
goal, and no two splits ask for the same, at whatever level and at no other price either.

The official data are three JSON files, where a user has them: products, attributes and human instructions. Nothing of
them comes with gentax. A goal belongs to the split that a hash of its product's code says; an instruction that also
occurs in an earlier split (train, validation, test) is dropped. That is not the published split, in which a product can
be on both sides.

The expert is a customer who wins. In the generated shop it knows no more than the goal and the pages it has seen; in
the official one, where a goal is free text, it knows which product the goal was written for.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gentax.core.env import SPLITS, ExpertAction, content_hash, split_of, stable_seed
from gentax.core.errors import UsageError
from gentax.domains.webshop import LONGEST, LevelSpec
from gentax.domains.webshop.shop import (
    BACK,
    BUY,
    NEXT,
    PREVIOUS,
    TITLED,
    Catalogue,
    Draw,
    Goal,
    Product,
    Session,
    alike,
    choose,
    sample,
)

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


TITLE_WORDS = 12  # that the official shop's customer searches for


def expert_action(session: Session, goal: Goal) -> ExpertAction | None:
    """Return what a customer does who reads; None when he has seen every result and nothing fits."""
    query = " ".join([*goal.attributes, goal.product.query, *goal.options])
    if session.page == "search":
        return ExpertAction(f"search[{query}]", "I search for what is asked.")
    if session.page == "results":
        return _pick(session, goal, query)
    product = session.product
    if session.page != "item":
        return _click(PREVIOUS, "Read; back to the product.")
    if not _promising(product, goal):
        return _click(PREVIOUS, "Not what is asked; back.")
    missing = [value for value in goal.options if value not in session.chosen.values()]
    for value in missing:
        if value not in product.values:
            return _click(PREVIOUS, f"It does not come in {value}; back.")
    hidden = _untitled(product, goal)
    if hidden and (product.code, "features") not in session.seen:
        return _click("features", f"Is it {hidden[0]}? The title does not say.")
    for asked in hidden:
        if not _featured(product, asked):
            return _click(PREVIOUS, f"It is not {asked}; back.")
    if missing:
        return _click(missing[0], f"It comes in {missing[0]}.")
    return _click(BUY, "It has all that is asked.")


def oracle_action(session: Session, goal: Goal) -> ExpertAction | None:
    """Return what a customer does who knows the product; None when a search for its title does not find it."""
    wanted = goal.product
    query = " ".join(wanted.title.split()[:TITLE_WORDS])
    if session.page == "search":
        return ExpertAction(f"search[{query}]", "I search for what is asked.")
    if session.page == "results":
        if wanted in session.shown():
            return _click(wanted.code.lower(), "This looks right.")
        if session.query == query.lower():
            return _click(NEXT, "Not here; next page.") if session.page_index + 1 < session.pages else None
        return _click(BACK, "A better search is needed.")
    if session.page != "item" or session.product is not wanted:
        return _click(PREVIOUS, "Back.")
    for asked in goal.options:
        if not any(alike(value, asked) for value in session.chosen.values()):
            for value in wanted.values:
                if alike(value, asked):
                    return _click(value, f"It comes in {value}.")
    return _click(BUY, "It has all that is asked.")


def _pick(session: Session, goal: Goal, query: str) -> ExpertAction | None:
    """Choose among the results: of those not ruled out, the first whose title has the most of what is asked."""
    shown = [product for product in session.shown() if _promising(product, goal)]
    left = [product for product in shown if not _ruled_out(session, product, goal)]
    if left:
        best = min(left, key=lambda product: len(_untitled(product, goal)))
        return _click(best.code.lower(), f"{best.code} at {best.tag} may be right.")
    if session.query != query:
        return _click(BACK, "A better search is needed.")
    return _click(NEXT, "None of these; next page.") if session.page_index + 1 < session.pages else None


def _promising(product: Product, goal: Goal) -> bool:
    """Whether the line on the results page speaks for the product."""
    return goal.product.query in product.title.lower().split() and product.price <= goal.limit


def _ruled_out(session: Session, product: Product, goal: Goal) -> bool:
    """Whether pages seen earlier speak against the product."""
    if (product.code, "item") not in session.seen:
        return False
    if not set(goal.options).issubset(product.values):
        return True
    if (product.code, "features") not in session.seen:
        return False
    return not all(_featured(product, asked) for asked in _untitled(product, goal))


def _untitled(product: Product, goal: Goal) -> list[str]:
    title = product.title.lower()
    return [asked for asked in goal.attributes if asked not in title]


def _featured(product: Product, asked: str) -> bool:
    return any(asked in feature.lower() for feature in product.features)


def _click(button: str, thought: str) -> ExpertAction:
    return ExpertAction(f"click[{button}]", thought)


# The official data.

HUMAN = "items_human_ins.json"
CHUNK = 1 << 22  # characters read at once
PRICE = ", and price lower than "
_SPACE = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class OfficialShop:
    """The official shop."""

    level: str
    catalogue: Catalogue
    goals: dict[str, tuple[Goal, ...]]  # by split


def read_official(folder: str | Path) -> OfficialShop:
    """Read the official data in `folder`; of the 1,000-product files and the full ones, the full ones.

    Raises:
        UsageError: a file is missing or cannot be read: which, and what is wrong with it.
    """
    folder = Path(folder)
    try:
        products, attributes = _pair(folder)
        human = folder / HUMAN
        stamps = tuple((file.stat().st_mtime_ns, file.stat().st_size) for file in (products, attributes, human))
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        missing = getattr(error, "filename", None) or folder
        raise UsageError(f"{missing}: {getattr(error, 'strerror', None) or error}; {_NEEDED}") from error
    return _read(products, attributes, human, stamps)


def official_content(product: Product) -> str:
    """Return the hash of a product of the official shop: of its code, by which everybody knows it."""
    return content_hash("webshop official", product.code)


_NEEDED = f"the official WebShop data are items_shuffle*.json, items_ins_v2*.json and {HUMAN} in one folder"


def _pair(folder: Path) -> tuple[Path, Path]:
    """Return the product file and the attribute file that belongs to it."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: not a folder; {_NEEDED}")
    found = sorted(folder.glob("items_shuffle*.json"), key=lambda file: (len(file.name), file.name))
    if not found:
        raise UsageError(f"{folder}: no items_shuffle*.json in it; {_NEEDED}")
    for products in found:
        attributes = folder / products.name.replace("items_shuffle", "items_ins_v2", 1)
        if attributes.is_file():
            return products, attributes
    wanted = found[0].name.replace("items_shuffle", "items_ins_v2", 1)
    raise UsageError(f"{folder}: {found[0].name} is there and {wanted} is missing; {_NEEDED}")


@cache
def _read(products: Path, attributes: Path, human: Path, stamps: tuple[Any, ...]) -> OfficialShop:
    known, asked = _whole(attributes), _whole(human)
    shop: dict[str, Product] = {}
    for number, item in enumerate(_items(products)):
        try:
            product = _product(item, known)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"
            raise UsageError(f"{products}: product {number} (from 0) is not as published ({what})") from error
        if product is not None:
            shop.setdefault(product.code, product)
    goals: dict[str, list[Goal]] = {split: [] for split in SPLITS}
    for code, product in shop.items():
        try:
            found = [_goal(one, product) for one in asked.get(code, ()) if one["instruction_attributes"]]
        except (AttributeError, KeyError, TypeError) as error:
            raise UsageError(f"{human}: the entry {code!r} is not as published ({error!r})") from error
        goals[split_of(official_content(product))] += found
    earlier: set[str] = set()
    for split, own in goals.items():
        own[:] = [goal for goal in own if _wish(goal) not in earlier]
        earlier.update(map(_wish, own))
        if not own:
            raise UsageError(f"{human}: no {split} instruction is for a product of {products.name}")
        own.sort(key=lambda goal: stable_seed(goal.text, goal.product.code))  # any first few are a fair sample
    digest = stable_seed(*shop, *(goal.text for split in SPLITS for goal in goals[split])) & 0xFFFFFFFF
    shops = Catalogue(list(shop.values()))
    return OfficialShop(f"official-{digest:08x}", shops, {split: tuple(own) for split, own in goals.items()})


def _whole(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file}: cannot be read as JSON ({_said(error)}); fetch it again") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file}: not an object of product codes; fetch it again")
    return content


def _items(file: Path) -> Iterator[Any]:
    """Yield the members of a JSON list without holding more of the file than one of them and a chunk."""
    decode = json.JSONDecoder().raw_decode
    try:
        with file.open(encoding="utf-8") as source:
            text = source.read(CHUNK).lstrip()
            if not text.startswith("["):
                raise ValueError("it is not a list")
            at = 1
            while True:
                at = _SPACE.match(text, at).end()
                if text[at : at + 1] == "]":
                    return
                try:
                    item, at = decode(text, at)
                except ValueError:
                    more = source.read(max(CHUNK, len(text) - at))
                    if not more:
                        raise
                    text, at = text[at:] + more, 0
                    continue
                yield item
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{file}: cannot be read as JSON ({_said(error)}); fetch it again") from error


def _product(item: dict[str, Any], known: dict[str, Any]) -> Product | None:
    """Read one product, as the published code does; None for one that it leaves out."""
    code = item["asin"]
    if code == "nan" or len(code) > 10:
        return None
    prices = [float(re.sub(r"[^\d.]", "", part)) for part in (item.get("pricing") or "").split("$")[1:]][:2]
    prices = prices or [100.0]
    # Where a range is shown the price paid is somewhere in it, always the same for a product.
    share = random.Random(stable_seed("webshop price", code)).random()
    price = prices[0] + (prices[-1] - prices[0]) * share
    options = {}
    for name, values in (item.get("customization_options") or {}).items():
        if values is not None:
            offered = [_line(one["value"].replace("/", " | ")).lower() for one in values]
            options[name.lower()] = tuple(filter(None, offered))
    bullets = item["small_description"]
    features = bullets if isinstance(bullets, list) else [bullets]
    title, attributes = _line(item["name"]), tuple(known.get(code, {}).get("attributes", ()))
    return Product(
        code,
        title,
        item["query"].lower().strip(),
        title_nouns(title, attributes),
        tuple(part.strip() for part in item["product_category"].split("›")),
        price,
        " to ".join(f"${one}" for one in prices),
        attributes,
        options,
        _line(item["full_description"]),
        tuple(_line(feature) for feature in features if feature),
    )


def _goal(one: dict[str, Any], product: Product) -> Goal:
    instruction = _line(one["instruction"]).strip(".")
    limit = price_limit(product.price, random.Random(stable_seed(product.code, instruction)).random)
    price = "" if limit == UNLIMITED else f"{PRICE}{limit:.2f} dollars"
    options = one.get("instruction_options") or []
    values = options.values() if isinstance(options, dict) else options
    attributes = tuple(text.lower() for text in one["instruction_attributes"])
    return Goal(f"{instruction}{price}", product, attributes, tuple(text.lower() for text in values), limit)


def _wish(goal: Goal) -> str:
    """Return an instruction without its price."""
    return goal.text.partition(PRICE)[0].lower()


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _said(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]

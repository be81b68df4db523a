"""The shop: products, the generated catalogue, search, a customer's session and the text of its pages."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np
from rapidfuzz import fuzz
from rapidfuzz.utils import default_process

from gentax.core.env import stable_seed

ALIKE = 85  # a `token_set_ratio` above it is a match


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

    @property
    def values(self) -> list[str]:
        """The values of all options, in order."""
        return [value for values in self.options.values() for value in values]


@dataclass(frozen=True, slots=True)
class Goal:
    """What an instruction asks for."""

    text: str
    product: Product  # one that has it all; another that has it all is as good
    attributes: tuple[str, ...]
    options: tuple[str, ...]  # values
    limit: float  # dollars


def alike(one: str, other: str) -> bool:
    """Whether two short texts mean the same: one's words hold the other's, or the letters are nearly equal."""
    return one == other or fuzz.token_set_ratio(one, other, processor=default_process) > ALIKE


# What the generated shop sells. No attribute is part of another, and no two values of an option are alike.

COLORS = ("red", "blue", "green", "black", "white", "pink", "brown", "yellow")


@dataclass(frozen=True, slots=True)
class Department:
    """Products that share attributes and options."""

    name: str
    aisles: dict[str, str]  # the aisle of each kind of product, by the kind
    attributes: tuple[str, ...]
    options: dict[str, tuple[str, ...]]


def _department(name: str, aisles: dict[str, str], attributes: str, **options: tuple[str, ...]) -> Department:
    kinds = {kind: aisle for aisle, kinds in aisles.items() for kind in kinds.split()}
    return Department(name, kinds, tuple(attributes.split(", ")), options)


DEPARTMENTS = (
    _department(
        "clothing",
        {"tops": "shirt sweater blouse vest", "outerwear": "jacket coat", "legwear": "trousers shorts socks skirt"},
        "cotton, linen, soft, slim, loose, stretchy, washable, quilted, striped, hooded, thermal, lined",
        color=COLORS,
        size=("s", "m", "l", "xl"),
    ),
    _department(
        "footwear",
        {"shoes": "sneakers loafers pumps", "boots": "boots galoshes", "open shoes": "sandals slippers clogs"},
        "leather, suede, waterproof, cushioned, vegan, breathable, laced, padded, wide, nonslip, flat, orthopedic",
        color=COLORS,
        size=("6", "7", "8", "9", "10", "11"),
    ),
    _department(
        "furniture",
        {"seats": "chair sofa bench stool", "tables": "desk table", "storage": "cabinet dresser wardrobe bookcase"},
        "wooden, metal, folding, modern, rustic, sturdy, compact, oval, painted, stackable, carved, glossy",
        color=COLORS,
        width=("narrow", "standard", "broad"),
    ),
    _department(
        "beauty",
        {"hair": "shampoo conditioner pomade", "skin": "lotion soap serum sunscreen", "makeup": "lipstick mascara"},
        "organic, mild, moisturizing, hypoallergenic, creamy, clear, soothing, foaming, mineral, dense, pure, gentle",
        scent=("lavender", "rose", "mint", "vanilla", "lemon", "coconut"),
        size=("small", "medium", "large"),
    ),
    _department(
        "electronics",
        {"audio": "headphones speaker microphone", "computing": "keyboard tablet router", "power": "charger battery"},
        "wireless, portable, rechargeable, quiet, backlit, rugged, fast, dustproof, foldable, magnetic, slender, dim",
        color=COLORS,
        memory=("16gb", "32gb", "64gb", "128gb"),
    ),
    _department(
        "kitchen",
        {"cookware": "pan wok kettle casserole", "tableware": "mug bowl platter", "machines": "blender toaster mixer"},
        "ceramic, steel, nonstick, insulated, ovenproof, handmade, enameled, deep, engraved, cordless, tall, fluted",
        color=COLORS,
        size=("small", "medium", "large"),
    ),
    _department(
        "grocery",
        {"drinks": "coffee tea cocoa lemonade", "snacks": "cookies crackers granola", "pantry": "honey jam mustard"},
        "sugar-free, salted, roasted, kosher, crunchy, spicy, keto, decaf, raw, gluten-free, smoked, bitter",
        flavor=("vanilla", "cherry", "ginger", "orange", "caramel", "almond"),
        pack=("single", "double", "family"),
    ),
    _department(
        "outdoor",
        {
            "camping": "tent hammock lantern cooler",
            "carrying": "backpack wallet suitcase",
            "garden": "hose shovel rake",
        },
        "foldaway, inflatable, camouflage, ultralight, lockable, windproof, reflective, heavy-duty, canvas, rustproof, "
        "long-lasting, ribbed",
        color=COLORS,
        size=("small", "medium", "large"),
    ),
)
BRANDS = ("norvik", "altura", "bexley", "corvane", "dunmore", "elbrook", "fenwick", "galdor", "hartsell", "ismay")
USES = ("every day", "travel", "the office", "weekends", "small homes", "beginners", "long days", "guests", "gifts")
PRAISE = ("well made", "a good buy", "just as described", "better than it looks", "worth its price", "a bit plain")
FILLERS = (
    "Packed with care and sent within two days.",
    "Designed with customers who know what they want.",
    "Please compare the measures before you order.",
    "Our support answers questions on any day of the week.",
    "Returns are free within thirty days.",
    "Shades may differ a little from screen to screen.",
    "A small leaflet tells how to look after it.",
    "Tested by people who use it again and again.",
)


# Search: BM25 with the parameters of the published shop's engine, equal scores in the order of the catalogue.
#
# Left out: a stemmer. Words lose a plural s and no more.

HITS = 50  # of a search, at most
K1, B = 0.9, 0.4  # of Lucene as the published shop runs it
REMEMBERED = 4096  # searches
STEPS = 1024  # of one score; scores of different processors differ in their last bits, and ties must not
_WORD = re.compile(r"[a-z0-9]+")


class Index:
    """The words of every product."""

    def __init__(self, texts: Iterable[str]) -> None:
        import bm25s  # takes a third of a second to import, and not every command searches

        options = {"token_pattern": _WORD.pattern, "stopwords": [], "stemmer": _stems}
        words = bm25s.tokenize(list(texts), **options, show_progress=False)
        self._known = words.vocab
        self._engine = bm25s.BM25(method="lucene", k1=K1, b=B)
        self._engine.index(words, create_empty_token=False, show_progress=False)
        self.search = lru_cache(REMEMBERED)(self._search)

    def _search(self, query: str) -> tuple[int, ...]:
        """Return the numbers of the products that match `query` best, best first; none when no word is known."""
        words = dict.fromkeys(_stems(_WORD.findall(query.lower())))
        ids = [self._known[word] for word in words if word in self._known]
        if not ids:
            return ()
        scores = np.rint(self._engine.get_scores_from_ids(ids) * STEPS).astype(np.int64)
        least = np.partition(scores, len(scores) - HITS)[len(scores) - HITS] if len(scores) > HITS else 1
        hits = np.flatnonzero(scores >= max(1, least))
        return tuple(hits[np.lexsort((hits, -scores[hits]))][:HITS].tolist())


def _stems(words: Iterable[str]) -> list[str]:
    return [word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word for word in words]


# The generated shop: products of every department, the same on every machine, made once in a process.
#
# A catalogue depends on its size and on the length of its texts only, never on a task.

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


_Written = tuple[float, str, str, tuple[Any, ...]]  # price, tag, code, texts


def _short(number: int, size: int, kind: str, attributes: tuple[str, ...], dollars: int, draw: Draw) -> _Written:
    use, praise = choose(USES, draw), choose(PRAISE, draw)
    title = f"{' '.join(attributes[:TITLED])} {kind}"
    code = f"b{number:0{len(str(size - 1))}}"
    return float(dollars), f"${dollars}", code, (title, f"For {use}.", attributes, (f"{praise}.",), "N.A.")


def _long(number: int, size: int, kind: str, attributes: tuple[str, ...], dollars: int, draw: Draw) -> _Written:
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
    texts = product.title, product.query, product.description, " ".join(product.features), " ".join(product.values)
    return " ".join(texts)


# A visit to the shop: which page is open, what has been seen and chosen, what a button does. No text is made here.

BACK, NEXT, PREVIOUS, BUY = "back to search", "next >", "< prev", "buy now"
DETAILS = ("description", "features", "reviews")


class Session:
    """One visit, from the search page to a purchase.

    `page` is "search", "results", "item" or one of `DETAILS`. A search can be made on the search page only.
    """

    def __init__(self, catalogue: Catalogue, per_page: int) -> None:
        self.catalogue, self.per_page = catalogue, per_page
        self.page = "search"
        self.query = ""
        self.hits: tuple[int, ...] = ()
        self.page_index = 0  # the results page, from 0
        self._on_page: tuple[int, ...] = ()  # those of `hits` on it
        self.product: Product | None = None
        self.chosen: dict[str, str] = {}  # values by option
        self.seen: set[tuple[str, str]] = set()  # product codes and their pages
        self.bought = False

    @property
    def pages(self) -> int:
        return -(-len(self.hits) // self.per_page)

    def shown(self) -> list[Product]:
        """Return the products on the results page."""
        return [self.catalogue.products[number] for number in self._on_page]

    def turns(self) -> list[str]:
        """Return the buttons that turn to another page of results."""
        return [NEXT] * (self.page_index + 1 < self.pages) + [PREVIOUS] * (self.page_index > 0)

    def buttons(self) -> list[str]:
        """Return everything that can be clicked now, in small letters."""
        if self.page == "search":
            return []
        if self.page == "results":
            return [*(product.code.lower() for product in self.shown()), *self.turns(), BACK]
        if self.page == "item":
            return list(dict.fromkeys([*self.product.values, *DETAILS, BUY, PREVIOUS, BACK]))
        return [PREVIOUS, BACK]

    def search(self, query: str) -> bool:
        """Search for `query`. Return whether that was possible."""
        if self.page != "search":
            return False
        self.page, self.query = "results", query
        self.hits = self.catalogue.index.search(query)
        self._turn_to(0)
        return True

    def _turn_to(self, page_index: int) -> None:
        self.page_index = page_index
        self._on_page = self.hits[page_index * self.per_page : (page_index + 1) * self.per_page]

    def click(self, button: str) -> bool:
        """Click `button`, in small letters. Return whether it is there."""
        if self.page == "search":
            return False
        if button == BACK:
            self.page = "search"
        elif self.page == "results":
            number = self.catalogue.by_code.get(button)
            if number in self._on_page:
                self.product, self.chosen = self.catalogue.products[number], {}
                self._open("item")
            elif button in self.turns():
                self._turn_to(self.page_index + (1 if button == NEXT else -1))
            else:
                return False
        elif self.page == "item":
            return self._click_item(button)
        elif button == PREVIOUS:
            self.page = "item"
        else:
            return False
        return True

    def _click_item(self, button: str) -> bool:
        if button == PREVIOUS:
            self.page = "results"
        elif button == BUY:
            self.bought = True
        elif button in DETAILS:
            self._open(button)
        else:
            for option, values in self.product.options.items():
                if button in values:
                    self.chosen[option] = button
                    return True
            return False
        return True

    def _open(self, page: str) -> None:
        self.page = page
        self.seen.add((self.product.code, page))


# Pages as text: a short one that a small model can read, and a long one laid out as the published text mode is.

SEPARATOR = " [SEP] "


def short_page(session: Session) -> str:
    """Return what is open now in as few words as will do; the buttons that are always there go without saying."""
    if session.page == "search":
        return "Search page."
    if session.page == "results":
        if not session.hits:
            return "No results."
        lines = [f"{product.code} {product.title} {product.tag}" for product in session.shown()]
        return "\n".join([f"Results, page {session.page_index + 1} of {session.pages}:", *lines])
    product = session.product
    if session.page == "item":
        options = "".join(f" {name}: {', '.join(values)}." for name, values in product.options.items())
        chosen = f" Chosen: {', '.join(session.chosen.values())}." if session.chosen else ""
        return f"{product.code} {product.title} {product.tag}.{options}{chosen}"
    return f"{session.page.capitalize()} of {product.code}: {detail(session)}"


def long_page(session: Session) -> str:
    """Return what is open now as the published text mode lays it out, buttons and all."""
    if session.page == "search":
        return "Search"
    back, previous = BACK.title(), PREVIOUS.title()
    product = session.product
    if session.page == "results":
        turns = [button.title() for button in session.turns()]
        parts = [back, f"Page {session.page_index + 1} (Total results: {len(session.hits)})", *turns]
        for found in session.shown():
            parts += [found.code, found.title, found.tag]
    elif session.page == "item":
        parts = [back, previous]
        for name, values in product.options.items():
            parts += [name, *values]
        parts += [product.title, f"Price: {product.tag}", f"Rating: {product.rating}"]
        parts += [button.capitalize() for button in DETAILS] + [BUY.title()]
        if session.chosen:
            parts.append(f"Chosen: {', '.join(session.chosen.values())}")
    else:
        parts = [back, previous, detail(session)]
    return SEPARATOR.join(parts)


def detail(session: Session) -> str:
    """Return the text of a product's description, features or reviews."""
    product = session.product
    if session.page == "description":
        return product.description or "None."
    parts = product.features if session.page == "features" else product.reviews
    if not parts:
        return "None."
    short = all(len(part.split()) == 1 for part in parts)
    return ", ".join(parts) + "." if short else " ".join(parts)

"""The official WebShop data, where a user has them: products, attributes and human instructions, three JSON files.

Nothing of them comes with gentax. The product file of the full shop has gigabytes; it is read product by product.
A goal belongs to the split that a hash of its product's code says; an instruction that also occurs in an earlier split
(train, validation, test) is dropped. That is not the published split, in which a product can be on both sides.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gentax.core.env import SPLITS, content_hash, split_of, stable_seed
from gentax.core.errors import UsageError
from gentax.domains.webshop.goals import UNLIMITED, price_limit, title_nouns
from gentax.domains.webshop.shop import Catalogue, Goal, Product

HUMAN = "items_human_ins.json"
CHUNK = 1 << 22  # characters read at once
PRICE = ", and price lower than "
_SPACE = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class Official:
    """The official shop."""

    level: str
    catalogue: Catalogue
    goals: dict[str, tuple[Goal, ...]]  # by split


def read_official(folder: str | Path) -> Official:
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
def _read(products: Path, attributes: Path, human: Path, stamps: tuple[Any, ...]) -> Official:
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
    return Official(f"official-{digest:08x}", shops, {split: tuple(own) for split, own in goals.items()})


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

"""What the generated shop sells. No attribute is part of another, and no two values of an option are alike."""

from __future__ import annotations

from dataclasses import dataclass

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

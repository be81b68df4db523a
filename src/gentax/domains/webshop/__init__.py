"""WebShop: search a shop, compare products, choose options and buy what an instruction describes.

The domain's record and its levels: how large the shop is, how hard the instruction, how long the pages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gentax.core.env import Domain, Level
from gentax.core.errors import UsageError, unknown
from gentax.core.imports import install_command

FORM = "Nk-easy, Nk-medium or Nk-hard, and -long for long pages"  # for example 20k-medium-long
OFFICIAL = "official"  # the level that needs data; in full it ends in a hash of them
THOUSANDS = (1, 100)
HORIZON = 15  # as in arXiv 2601.18217
LONGEST = 10  # steps of the expert; what takes it longer is no task
ASKED = {"easy": (1, 1), "medium": (2, 1), "hard": (3, 2)}  # attributes and options in the instruction
_FORM = re.compile(r"([0-9]{1,4})k-(easy|medium|hard)(-long)?")


@dataclass(frozen=True, slots=True)
class LevelSpec:
    """What every task of a level has in common."""

    thousands: int  # of products
    hardness: str  # one of `ASKED`
    long: bool = False  # pages of ten products with long texts, as published, or of four with short ones

    @property
    def size(self) -> int:
        return 1000 * self.thousands

    @property
    def attributes(self) -> int:
        return ASKED[self.hardness][0]

    @property
    def options(self) -> int:
        return ASKED[self.hardness][1]

    @property
    def about(self) -> str:
        asked = f"{self.attributes} attribute{'s' * (self.attributes > 1)}, {self.options} option"
        pages = "long pages of ten" if self.long else "short pages of four"
        return f"{self.size:,} products, {asked}{'s' * (self.options > 1)} and a price asked for, {pages}"


NAMED = {
    "1k-easy": LevelSpec(1, "easy"),
    # The default: with fewer products the first result is mostly right, and prices need not be read.
    "4k-easy": LevelSpec(4, "easy"),
    "4k-medium": LevelSpec(4, "medium"),
    "10k-medium": LevelSpec(10, "medium"),
    "10k-hard": LevelSpec(10, "hard"),
    "10k-hard-long": LevelSpec(10, "hard", long=True),
    "100k-hard-long": LevelSpec(100, "hard", long=True),
}
DEFAULT = "4k-easy"
LEVELS = {name: Level(horizon=HORIZON, about=spec.about) for name, spec in NAMED.items()}


def parse_level(level: str) -> LevelSpec:
    """Return what `level` asks for: a named level, or one spelled like it with another size.

    Raises:
        UsageError: a name that is neither, or a size out of range.
    """
    if level in NAMED:
        return NAMED[level]
    form = _FORM.fullmatch(level)
    if form is None:
        raise unknown("level of webshop", level, [*NAMED, FORM])
    spec = LevelSpec(int(form[1]), form[2], form[3] is not None)
    low, high = THOUSANDS
    if not low <= spec.thousands <= high:
        raise UsageError(f"level {level!r} of webshop: {low}k to {high}k products, not {spec.thousands}k")
    return spec


DOMAIN = Domain(
    name="webshop",
    entry="gentax.domains.webshop.env:WebShop",
    about="Search a shop, compare products, choose options and buy what an instruction describes.",
    rules=(
        "You are in a web shop. Buy what the goal asks for, with its options. On the search page: search[words]. "
        "Elsewhere: click[button]. Buttons: a product's code, an option, next >, < prev, back to search, description, "
        "features, reviews, buy now."
    ),
    levels=LEVELS,
    default_level=DEFAULT,
    licence="Apache-2.0",
    origin="the published rules of WebShop (arXiv 2207.01206) on gentax's own generated catalogue, or on its data",
    requires=("bm25s", "rapidfuzz"),
    enable=install_command("gentax"),
    open_levels=True,
)

"""WebShop: search a shop, compare products, choose options and buy what an instruction describes."""

from gentax.core.env import Domain
from gentax.domains.webshop.levels import DEFAULT, LEVELS

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
    enable="pip install bm25s rapidfuzz",
    open_levels=True,
)

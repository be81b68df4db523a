"""A visit to the shop: which page is open, what has been seen and chosen, what a button does. No text is made here."""

from __future__ import annotations

from gentax.domains.webshop.catalogue import Catalogue
from gentax.domains.webshop.product import Product

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
        self.at = 0  # the results page, from 0
        self.product: Product | None = None
        self.chosen: dict[str, str] = {}  # values by option
        self.seen: set[tuple[str, str]] = set()  # product codes and their pages
        self.bought = False

    @property
    def pages(self) -> int:
        return -(-len(self.hits) // self.per_page)

    def shown(self) -> list[Product]:
        """Return the products on the results page."""
        first = self.at * self.per_page
        return [self.catalogue.products[number] for number in self.hits[first : first + self.per_page]]

    def buttons(self) -> list[str]:
        """Return everything that can be clicked now, in small letters."""
        if self.page == "search":
            return []
        if self.page == "results":
            turns = [NEXT] * (self.at + 1 < self.pages) + [PREVIOUS] * (self.at > 0)
            return [*(product.code.lower() for product in self.shown()), *turns, BACK]
        if self.page == "item":
            values = (value for values in self.product.options.values() for value in values)
            return list(dict.fromkeys([*values, *DETAILS, BUY, PREVIOUS, BACK]))
        return [PREVIOUS, BACK]

    def search(self, query: str) -> bool:
        """Search for `query`. Return whether that was possible."""
        if self.page != "search":
            return False
        self.page, self.query, self.at = "results", query, 0
        self.hits = self.catalogue.index.search(query)
        return True

    def click(self, button: str) -> bool:
        """Click `button`, in small letters. Return whether it is there."""
        if self.page == "search":
            return False
        if button == BACK:
            self.page = "search"
        elif self.page == "results":
            return self._click_result(button)
        elif self.page == "item":
            return self._click_item(button)
        elif button == PREVIOUS:
            self.page = "item"
        else:
            return False
        return True

    def _click_result(self, button: str) -> bool:
        number = self.catalogue.by_code.get(button)
        if number is not None and number in self.hits[self.at * self.per_page : (self.at + 1) * self.per_page]:
            self.product, self.chosen = self.catalogue.products[number], {}
            self._open("item")
        elif button == NEXT and self.at + 1 < self.pages:
            self.at += 1
        elif button == PREVIOUS and self.at > 0:
            self.at -= 1
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

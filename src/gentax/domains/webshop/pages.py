"""Pages as text: a short one that a small model can read, and a long one laid out as the published text mode is."""

from __future__ import annotations

from gentax.domains.webshop.session import BACK, BUY, DETAILS, NEXT, PREVIOUS, Session

SEPARATOR = " [SEP] "


def short_page(session: Session) -> str:
    """Return what is open now in as few words as will do; the buttons that are always there go without saying."""
    if session.page == "search":
        return "Search page."
    if session.page == "results":
        if not session.hits:
            return "No results."
        lines = [f"{product.code} {product.title} {product.tag}" for product in session.shown()]
        return "\n".join([f"Results, page {session.at + 1} of {session.pages}:", *lines])
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
    back, previous, onward = BACK.title(), PREVIOUS.title(), NEXT.title()
    product = session.product
    if session.page == "results":
        turns = [onward] * (session.at + 1 < session.pages) + [previous] * (session.at > 0)
        parts = [back, f"Page {session.at + 1} (Total results: {len(session.hits)})", *turns]
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

"""A customer who wins. In the generated shop he knows no more than the goal and the pages he has seen; in the
official one, where a goal is free text, he knows which product it was written for.
"""

from __future__ import annotations

from gentax.core.env import ExpertAction
from gentax.domains.webshop.shop import BACK, BUY, NEXT, PREVIOUS, Goal, Product, Session, alike

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
    offered = [value for values in product.options.values() for value in values]
    for value in missing:
        if value not in offered:
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
            for values in wanted.options.values():
                for value in values:
                    if alike(value, asked):
                        return _click(value, f"It comes in {value}.")
    return _click(BUY, "It has all that is asked.")


def _pick(session: Session, goal: Goal, query: str) -> ExpertAction | None:
    """Choose among the results: of those not ruled out, the first whose title has the most of what is asked."""
    left = [
        product for product in session.shown() if _promising(product, goal) and not _ruled_out(session, product, goal)
    ]
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
    offered = {value for values in product.options.values() for value in values}
    if not offered.issuperset(goal.options):
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

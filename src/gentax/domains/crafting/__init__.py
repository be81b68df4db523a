"""Crafting: get materials and craft what a list of made-up recipes leads to, in the action grammar of TextCraft."""

from gentax.core.env import Domain
from gentax.domains.crafting.levels import DEFAULT, LEVELS

DOMAIN = Domain(
    name="crafting",
    entry="gentax.domains.crafting.env:Crafting",
    about="Get materials and craft them, step by step, into the thing asked for; every task has recipes of its own.",
    rules=(
        "Craft the goal with the recipes. What no recipe makes you can get, 1 to 6 at a time. "
        "Actions: get NUMBER ITEM; craft, written exactly as in the recipe; inventory."
    ),
    levels=LEVELS,
    default_level=DEFAULT,
    licence="Apache-2.0",
    origin="gentax's own recipes; the action grammar follows TextCraft (ADaPT, arXiv 2311.05772)",
    open_levels=True,
)

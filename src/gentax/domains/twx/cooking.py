"""twx-cooking: read a recipe, gather and prepare the ingredients, eat the meal (TextWorldExpress's CookingWorld)."""

from gentax.core.env import Domain
from gentax.domains.twx.levels import COOKING, ENABLE, LICENCE, ORIGIN, REQUIRES, levels

DOMAIN = Domain(
    name="twx-cooking",
    entry="gentax.domains.twx.env:Cooking",
    about="Read the recipe, gather and prepare what it asks for, cook and eat the meal (TextWorldExpress).",
    rules=(
        "Cook and eat the meal of the cookbook. Commands: take X, put X in Y, open X, close X, read cookbook, slice X, "
        "chop X, dice X, cook X in Y, prepare meal, eat meal, examine X, look around, inventory; between rooms move "
        "north, open door to north. A stove fries, an oven roasts, a toaster or barbeque grills. Food that is cooked "
        "or cut in another way than the recipe says, or eaten before it is a meal, ends the game."
    ),
    levels=levels(COOKING),
    default_level=COOKING.default,
    licence=LICENCE,
    origin=ORIGIN,
    target_only=True,
    requires=REQUIRES,
    enable=ENABLE,
)

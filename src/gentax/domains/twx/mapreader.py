"""twx-mapreader: fetch a coin from a room that only the map leads to (TextWorldExpress's MapReader)."""

from gentax.core.env import Domain
from gentax.domains.twx.levels import ENABLE, LICENCE, MAPREADER, ORIGIN, REQUIRES, levels

DOMAIN = Domain(
    name="twx-mapreader",
    entry="gentax.domains.twx.env:MapReader",
    about="Fetch a coin from a room some rooms away, by a map that tells which rooms connect (TextWorldExpress).",
    rules=(
        "Fetch the coin and put it into the box. Commands: read map, move north, move south, move east, move west, "
        "take coin, put coin in box, take X, look around, inventory, task. The map tells which rooms connect."
    ),
    levels=levels(MAPREADER),
    default_level=MAPREADER.default,
    licence=LICENCE,
    origin=ORIGIN,
    target_only=True,
    requires=REQUIRES,
    enable=ENABLE,
)

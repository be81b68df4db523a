"""TextWorldExpress: household text games, played through the `textworld-express` package. Two of its eight games.

The records of the two domains and their levels: what the package's generator is given, and how long an episode may be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from gentax.core.env import Domain, Level
from gentax.core.imports import install_command

FOLDS = {"train": "train", "validation": "dev", "test": "test"}  # split -> the package's name for it
FOLD = 1000  # seeds of each of the package's folds
FIRST = {"train": 0, "validation": 10_000, "test": 20_000}  # first seed of a fold; a test compares them


@dataclass(frozen=True, slots=True)
class LevelSpec:
    """One level of a game."""

    about: str
    horizon: int  # about twice the longest gold path that was seen, where that is short
    parameters: str  # for the package's generator


@dataclass(frozen=True, slots=True)
class Game:
    """One of the package's games."""

    name: str  # the package's
    default: str  # level
    specs: Mapping[str, LevelSpec]


COOKING = Game(
    "cookingworld",
    "simple",
    {
        "simple": LevelSpec(
            "one kitchen, one ingredient, two things that are not needed",
            30,
            "numLocations=1,numIngredients=1,numDistractorItems=2,includeDoors=0,limitInventorySize=0",
        ),
        "easy": LevelSpec(
            "one kitchen, two ingredients, two things that are not needed",
            30,
            "numLocations=1,numIngredients=2,numDistractorItems=2,includeDoors=0,limitInventorySize=0",
        ),
        "medium": LevelSpec(
            "three rooms without doors, two ingredients, three things that are not needed",
            40,
            "numLocations=3,numIngredients=2,numDistractorItems=3,includeDoors=0,limitInventorySize=0",
        ),
        "hard": LevelSpec("the package's default: eleven rooms with doors, three ingredients, five hands", 160, ""),
    },
)

MAPREADER = Game(
    "mapreader",
    "large",
    {
        "easy": LevelSpec(
            "four rooms, the coin at most two away, nothing else to take",
            20,
            "numLocations=4,maxDistanceApart=2,maxDistractorItemsPerLocation=0,includeDoors=0,limitInventorySize=0",
        ),
        "medium": LevelSpec(
            "eight rooms, the coin at most three away, one thing more in a room",
            30,
            "numLocations=8,maxDistanceApart=3,maxDistractorItemsPerLocation=1,includeDoors=0,limitInventorySize=0",
        ),
        "large": LevelSpec(
            "eleven rooms, the coin at most four away, one thing more in a room",
            30,
            "numLocations=11,maxDistanceApart=4,maxDistractorItemsPerLocation=1,includeDoors=0,limitInventorySize=0",
        ),
        "hard": LevelSpec("the package's default: fifteen rooms, the coin at most four away", 40, ""),
    },
)


@cache
def _repeated() -> Any:
    """Return game → level → split → the seeds of a fold, counted from its first, whose world an earlier fold has.

    They are no tasks. A test compares with the package. What is not in the file has none.
    """
    return json.loads((files(__package__) / "repeated_seeds.json").read_text(encoding="utf-8"))


@cache
def numbers(game: str, level: str, split: str) -> tuple[int, ...]:
    """Return which seeds of a fold, counted from its first, are the tasks of a game at a level."""
    left_out = _repeated().get(game, {}).get(level, {}).get(split, ())
    return tuple(number for number in range(FOLD) if number not in left_out)


def levels(game: Game) -> Mapping[str, Level]:
    """Return the levels of a game as a domain's record has them."""
    return {name: Level(spec.horizon, spec.about) for name, spec in game.specs.items()}


COOKING_DOMAIN = Domain(
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
    licence="Apache-2.0",
    origin="the textworld-express package 1.1 (arXiv 2208.01174), its own games and folds; texts shortened",
    target_only=True,
    requires=("textworld_express",),
    enable=install_command("gentax[domains]"),
)


MAPREADER_DOMAIN = replace(
    COOKING_DOMAIN,
    name="twx-mapreader",
    entry="gentax.domains.twx.env:MapReader",
    about="Fetch a coin from a room some rooms away, by a map that tells which rooms connect (TextWorldExpress).",
    rules=(
        "Fetch the coin and put it into the box. Commands: read map, move north, move south, move east, move west, "
        "take coin, put coin in box, take X, look around, inventory, task. The map tells which rooms connect."
    ),
    levels=levels(MAPREADER),
    default_level=MAPREADER.default,
)

"""The games and their levels: what the package's generator is given, and how long an episode may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gentax.core.env import Level

SPLITS = ("train", "dev", "test")
FOLD = 1000  # tasks of each of the package's folds
FIRST = {"train": 0, "dev": 10_000, "test": 20_000}  # the seed a fold begins with; a test compares with the package

# What both records say.
LICENCE = "Apache-2.0"
ORIGIN = "the textworld-express package 1.1 (arXiv 2208.01174), its own games and folds; texts shortened"
REQUIRES = ("textworld_express",)
ENABLE = "pip install textworld-express"


@dataclass(frozen=True, slots=True)
class Spec:
    """One level of a game."""

    about: str
    horizon: int  # about twice the longest gold path that was seen, where that is short
    parameters: str  # for the package's generator


@dataclass(frozen=True, slots=True)
class Game:
    """One of the package's games."""

    name: str  # the package's
    default: str  # level
    specs: Mapping[str, Spec]


COOKING = Game(
    "cookingworld",
    "simple",
    {
        "simple": Spec(
            "one kitchen, one ingredient, two things that are not needed",
            30,
            "numLocations=1,numIngredients=1,numDistractorItems=2,includeDoors=0,limitInventorySize=0",
        ),
        "easy": Spec(
            "one kitchen, two ingredients, two things that are not needed",
            30,
            "numLocations=1,numIngredients=2,numDistractorItems=2,includeDoors=0,limitInventorySize=0",
        ),
        "medium": Spec(
            "three rooms without doors, two ingredients, three things that are not needed",
            40,
            "numLocations=3,numIngredients=2,numDistractorItems=3,includeDoors=0,limitInventorySize=0",
        ),
        "hard": Spec("the package's default: eleven rooms with doors, three ingredients, five hands", 160, ""),
    },
)

MAPREADER = Game(
    "mapreader",
    "medium",
    {
        "easy": Spec(
            "four rooms, the coin at most two away, nothing else to take",
            20,
            "numLocations=4,maxDistanceApart=2,maxDistractorItemsPerLocation=0,includeDoors=0,limitInventorySize=0",
        ),
        "medium": Spec(
            "eight rooms, the coin at most three away, one thing more in a room",
            30,
            "numLocations=8,maxDistanceApart=3,maxDistractorItemsPerLocation=1,includeDoors=0,limitInventorySize=0",
        ),
        "hard": Spec("the package's default: fifteen rooms, the coin at most four away", 40, ""),
    },
)


def levels(game: Game) -> Mapping[str, Level]:
    """Return the levels of a game as a domain's record has them."""
    return {name: Level(spec.horizon, spec.about) for name, spec in game.specs.items()}

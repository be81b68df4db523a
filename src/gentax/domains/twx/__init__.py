"""TextWorldExpress: household text games, played through the `textworld-express` package. Two of its eight games.

The records of the two domains and their levels: what the package's generator is given, and how long an episode may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from gentax.core.env import Domain, Level
from gentax.core.extras import install_command

FOLDS = {"train": "train", "validation": "dev", "test": "test"}  # split -> the package's name for it
FOLD = 1000  # seeds of each of the package's folds
FIRST = {
    "train": 0,
    "validation": 10_000,
    "test": 20_000,
}  # first seed of a fold; a test compares them

# What both records say.
LICENCE = "Apache-2.0"
ORIGIN = "the textworld-express package 1.1 (arXiv 2208.01174), its own games and folds; texts shortened"
REQUIRES = ("textworld_express",)
ENABLE = install_command("gentax[domains]")


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


# Seeds of a fold, counted from its first, whose world is that of an earlier fold: they are no tasks. A test compares
# with the package. The other levels have none.
REPEATED: Mapping[tuple[str, str], Mapping[str, tuple[int, ...]]] = {
    ("cookingworld", "simple"): {
        "validation": (13, 24, 27, 28, 56, 59, 64, 99, 105, 106, 121, 124, 127, 152, 207, 233, 236, 239),
        "test": (
            *(5, 6, 31, 52, 80, 83, 84, 87, 124, 173, 176, 177, 181, 183, 186, 192, 212, 216, 219, 246, 247, 277, 278),
            *(282, 307, 312, 313, 323, 326, 331, 373, 407, 409, 413, 416, 424, 428, 448, 490, 492, 494, 516, 523, 562),
            *(570, 596, 600, 612, 624, 700, 707, 708, 719, 726, 729, 730, 733, 752, 760, 763, 766, 767, 771, 794, 796),
            *(802, 805, 812, 823, 829, 830, 840, 843, 844, 867, 894, 895, 902, 916, 927, 937, 940, 941, 943, 965, 972),
            *(978, 997, 998),
        ),
    },
    ("cookingworld", "easy"): {"test": (286,)},
    ("cookingworld", "medium"): {"test": (62, 573)},
    ("mapreader", "easy"): {
        "validation": (335, 367, 421, 528, 658, 708, 817, 909),
        "test": (212, 316, 364, 544, 604, 706, 712, 722, 745, 775, 924, 965, 998),
    },
    ("mapreader", "medium"): {"validation": (51, 314), "test": (59, 164, 339, 817, 942)},
    ("mapreader", "large"): {"validation": (987,), "test": (271,)},
}


@cache
def numbers(game: str, level: str, split: str) -> tuple[int, ...]:
    """Return which seeds of a fold, counted from its first, are the tasks of a game at a level."""
    left_out = REPEATED.get((game, level), {}).get(split, ())
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
    licence=LICENCE,
    origin=ORIGIN,
    target_only=True,
    requires=REQUIRES,
    enable=ENABLE,
)


MAPREADER_DOMAIN = Domain(
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

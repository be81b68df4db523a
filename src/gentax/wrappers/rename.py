"""Other words for the same things: a shift of what words mean (the semantic shift of arXiv 2603.12011).

A dictionary of disjoint pairs, read both ways at once, so that translating twice gives any text back: what the agent
reads goes through it, and so does what it writes. Left out: grammar beyond the plural; articles suit the new words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from random import Random

import gymnasium

from gentax.core.env import ExpertAction, stable_seed
from gentax.core.errors import UsageError
from gentax.wrappers.base import TextWrapper

NOUNS: dict[str, tuple[str, ...]] = {
    "sokoban": ("wall", "target", "box", "room"),
    "sciworld": (
        "kitchen", "bathroom", "hallway", "bedroom", "workshop", "greenhouse", "foundry", "studio", "room", "door",
        "table", "chair", "counter", "cupboard", "drawer", "fridge", "freezer", "oven", "stove", "sink", "closet",
        "shelf", "desk", "bed", "bathtub", "toilet", "box", "jar", "cup", "bowl", "pot", "bucket", "picture",
        "painting", "thermometer", "stopwatch", "lighter", "axe", "shovel", "fountain", "ground", "substance", "animal",
        "plant", "egg", "water", "soap", "wood", "agent", "apple", "banana", "orange", "potato", "tree", "seed", "soil",
    ),
    "alfworld": (
        "armchair", "bathtubbasin", "bed", "cabinet", "cart", "coffeemachine", "coffeetable", "countertop", "desk",
        "diningtable", "drawer", "dresser", "fridge", "garbagecan", "microwave", "ottoman", "safe", "shelf",
        "sidetable", "sinkbasin", "sofa", "stoveburner", "toilet", "desklamp", "floorlamp", "alarmclock", "apple",
        "baseballbat", "basketball", "book", "bowl", "box", "bread", "candle", "cd", "cellphone", "cloth", "creditcard",
        "cup", "dishsponge", "egg", "fork", "handtowel", "kettle", "keychain", "knife", "ladle", "laptop", "lettuce",
        "mug", "newspaper", "pan", "pen", "pencil", "pillow", "plate", "plunger", "pot", "potato", "remotecontrol",
        "soapbar", "soapbottle", "spatula", "spoon", "statue", "tissuebox", "tomato", "towel", "vase", "watch",
    ),
    "crafting": (
        "log", "clay", "reed", "stone", "fibre", "resin", "sand", "ore", "moss", "bark", "flint", "wool", "plank",
        "rod", "rope", "brick", "cord", "frame", "hook", "panel", "wheel", "mallet", "basket", "lantern", "ladder",
        "bell", "shield", "cart",
    ),
    "webshop": (
        "shirt", "sweater", "blouse", "vest", "jacket", "coat", "trousers", "socks", "skirt", "sneakers", "boots",
        "sandals", "slippers", "chair", "sofa", "bench", "stool", "desk", "table", "cabinet", "wardrobe", "bookcase",
        "shampoo", "lotion", "soap", "lipstick", "headphones", "speaker", "keyboard", "tablet", "charger", "battery",
        "pan", "kettle", "mug", "bowl", "blender", "toaster", "mixer", "coffee", "tea", "cookies", "crackers", "honey",
        "jam", "tent", "hammock", "lantern", "backpack", "wallet", "suitcase", "hose", "shovel",
    ),
    "babyai": ("key", "ball", "box", "door", "wall", "room"),
    "twx": (
        "kitchen", "pantry", "corridor", "bathroom", "bedroom", "garden", "backyard", "street", "door", "fridge",
        "oven", "stove", "counter", "table", "cupboard", "shelf", "sink", "knife", "cookbook", "recipe", "meal", "coin",
        "map", "box", "chamber", "parlor", "room", "toaster", "chair",
    ),
}  # fmt: skip

SIGNS: dict[str, str] = {"sokoban": "#_.$*@+"}
FRESH_SIGNS = "%^&=!~?:|<>/"  # signs to put in their place


_WORDS = re.compile(r"[^\W\d_]+")
_WORDS_AND_SIGNS = re.compile(r"[^\W\d_]+|(?<!\S)(?:[^\w\s]|_)+(?!\S)")  # signs only where they stand by themselves


class Rename(TextWrapper):
    """Renames things in rules, goal, observations, actions and thoughts: whole words, plurals too, their case kept.

    An old name is not understood any more. Signs are renamed in runs of signs alone, such as the rows of a grid.

    Args:
        env: any text environment.
        words: what to rename. A mapping gives the new words and is read both ways, so that {"box": "target"} swaps
            the two; for a list, words are invented; None is the domain's nouns and signs (`NOUNS`, `SIGNS`).
        seed: of the invented words.

    Raises:
        UsageError: a word that is not two or more plain letters in lower case, a word in two pairs, or no words
            for a domain that has no list.
    """

    def __init__(
        self, env: gymnasium.Env[str, str], words: Mapping[str, str] | Iterable[str] | None = None, seed: int = 0
    ) -> None:
        words = list(words) if words is not None and not isinstance(words, Mapping) else words
        super().__init__(env, words=words, seed=seed)
        name = self.text_env.domain.name
        rng = Random(stable_seed("rename", seed))
        signs = ""
        if words is None:
            nouns = NOUNS.get(name) or NOUNS.get(name.partition("-")[0])
            if nouns is None:
                raise UsageError(f"domain {name!r} has no list of nouns to rename: say which, words=[...]")
            words, signs = nouns, SIGNS.get(name, "")
        self.pairs = dict(words) if isinstance(words, Mapping) else _invented(words, rng)
        self._table = _table(self.pairs)
        fresh = "".join(rng.sample(FRESH_SIGNS, len(signs)))
        self._signs = str.maketrans(signs + fresh, fresh + signs)
        self._pattern = _WORDS_AND_SIGNS if signs else _WORDS
        self._goal = ""

    def translate(self, text: str) -> str:
        """Return `text` in the other words. Twice is the text itself, whatever it is."""
        return self._pattern.sub(self._other, text)

    def _other(self, match: re.Match[str]) -> str:
        word = match[0]
        return self._table.get(word) or (word if word[0].isalpha() else word.translate(self._signs))

    def on_reset(self) -> None:
        self._goal = self.translate(self.text_env.goal)

    def transform_observation(self, observation: str) -> str:
        return self.translate(observation)

    def transform_action(self, action: str) -> str:
        return self.translate(action)

    def transform_rules(self, rules: str) -> str:
        return self.translate(rules)

    @property
    def goal(self) -> str:
        return self._goal

    def admissible(self) -> list[str] | None:
        actions = self.text_env.admissible()
        return None if actions is None else [self.translate(action) for action in actions]

    def expert(self) -> ExpertAction | None:
        move = self.text_env.expert()
        return None if move is None else ExpertAction(self.translate(move.action), self.translate(move.thought))

    def render(self) -> str:
        return self.translate(str(self.env.render()))


def plural(word: str) -> str:
    """Return the regular plural of a noun in lower case."""
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    if word.endswith("f"):
        return f"{word[:-1]}ves"  # shelf
    return word + ("es" if word.endswith(("x", "s", "ch", "sh", "to")) else "s")


def _invented(words: Iterable[str], rng: Random) -> dict[str, str]:
    """Give each word one of two syllables that English does not have, beginning with a vowel where it does."""
    taken: set[str] = set()
    pairs = {}
    for word in words:
        while True:
            new = ("" if word[:1] in tuple("aeiou") else rng.choice("bdfgklmnprtvz")) + rng.choice("aeiou")
            new += rng.choice(("lk", "mb", "nd", "rv", "sk", "zz", "gr", "pl")) + rng.choice("aiou")
            new += rng.choice("lmnrtk")
            if new not in taken:
                break
        taken.add(new)
        pairs[word] = new
    return pairs


def _table(pairs: Mapping[str, str]) -> dict[str, str]:
    """Return the dictionary of all forms, both ways."""
    table: dict[str, str] = {}
    for pair in pairs.items():
        for word in pair:
            if not (len(word) > 1 and word.isascii() and word.isalpha() and word.islower()):
                raise UsageError(f"words to rename are two or more letters in lower case, not {word[:40]!r}")
        for old, new in (pair, tuple(map(plural, pair))):
            for form in (str, str.capitalize, str.upper):
                for one, other in ((form(old), form(new)), (form(new), form(old))):
                    if table.setdefault(one, other) != other:
                        raise UsageError(f"{one!r} is in two of the pairs to rename")
    return table

"""The recipes of a task: a tree from the goal down to materials, every task with its own.

What is made by what decides the split, by a hash that does not look at the numbers: no test tree is ever seen in
training, at whatever level and not with other quantities either.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from gentax.core.env import content_hash, split_of, stable_seed
from gentax.domains.crafting import LevelSpec

T = TypeVar("T")


def _words(text: str) -> list[str]:
    return text.split()


# What can be got.
SOURCES = _words("oak birch cedar willow river cave marsh hill meadow forest desert winter")
MATERIALS = _words("log clay reed stone fibre resin sand ore moss bark flint wool")

# What recipes make.
KINDS = _words("plain woven carved bound polished hollow double narrow heavy curved folded pressed")
PRODUCTS = _words("plank rod rope brick cord frame hook panel wheel mallet basket lantern ladder bell shield cart")

# What lies about, and what there is to say of it.
LOOKS = _words("old worn dusty chipped faded cracked stained dented dull warm damp spotless rusty crooked tiny")
CLUTTER = _words("jug plate candle scarf mirror bucket pillow brush kettle coin letter vase stool comb flute")
CLAUSES = [
    "beside the door", "under the window", "on a shelf", "near the stairs", "with no label", "with two scratches",
    "smelling of smoke", "covered in cobwebs", "left by someone", "wrapped in paper", "facing the wall",
    "half in shadow", "of little use", "below a painting", "tied with string",
]  # fmt: skip


MOST = 6  # of one material that can be got at once; no recipe of a plan needs more at a time
REPEATS = 2  # times a plan crafts one recipe, at most


@dataclass(frozen=True, slots=True)
class Recipe:
    """What turns some things into others."""

    makes: str
    count: int  # made at once
    needs: tuple[tuple[str, int], ...]  # items and how many; those that are crafted come first

    @property
    def text(self) -> str:
        """The recipe, which is also the action that carries it out."""
        needs = ", ".join([f"{count} {item}" for item, count in self.needs])
        return f"craft {self.count} {self.makes} using {needs}"


@dataclass(frozen=True, slots=True)
class Book:
    """All there is to know in a task. Recipes are listed in an order that does not tell their use."""

    goal: str
    recipes: dict[str, Recipe]  # by what they make
    times: dict[str, int]  # how often a plan crafts each
    materials: tuple[str, ...]

    @property
    def steps(self) -> int:
        """The length of a plan: each material got once for each recipe it goes into, and every craft."""
        gets = sum([item not in self.recipes for recipe in self.recipes.values() for item, _ in recipe.needs])
        return gets + sum(self.times.values())


def generate(spec: LevelSpec, split: str, seed: int) -> Book:
    """Return the recipes that `seed` stands for."""
    draw = random.Random(seed).random
    while True:
        book = _draw(spec.depth, draw)
        if spec.shortest <= book.steps <= spec.longest and split_of(content_of(book)) == split:
            return book


def content_of(book: Book) -> str:
    """Return the hash of a set of recipes, whatever their numbers and order."""
    made = sorted((recipe.makes, *sorted([item for item, _ in recipe.needs])) for recipe in book.recipes.values())
    return content_hash("crafting", book.goal, made)


def _draw(depth: int, draw: Callable[[], float]) -> Book:
    recipes: list[Recipe] = []
    times: dict[str, int] = {}
    taken: set[str] = set()
    materials: list[str] = []

    def name(kinds: list[str], nouns: list[str]) -> str:
        while True:
            found = f"{_choose(kinds, draw)} {_choose(nouns, draw)}"
            if found not in taken:
                taken.add(found)
                return found

    def material() -> str:
        if materials and draw() < 0.25:
            return _choose(materials, draw)
        materials.append(name(SOURCES, MATERIALS))
        return materials[-1]

    def grow(wanted: int, depth: int) -> str:
        """Draw the recipe of an item of which `wanted` are needed, and everything below it."""
        item = name(KINDS, PRODUCTS)
        count = _choose([n for n in (1, 1, 1, 2, 2, 3, 4) if -(-wanted // n) <= REPEATS], draw)
        times[item] = repeats = -(-wanted // count)
        needs: list[tuple[str, int]] = []
        below = [depth - 1]  # the depth of each thing it needs; 0 is a material
        if draw() < 0.7:
            below.append(int(draw() * depth) if draw() < 0.3 else 0)
        for level in below:
            if level:
                each = 1 + int(draw() * 2)
                needs.append((grow(each * repeats, level), each))
            else:
                found, each = material(), 1 + int(draw() * (MOST // REPEATS))
                if all(found != other for other, _ in needs):
                    needs.append((found, each))
        recipes.append(Recipe(item, count, tuple(needs)))
        return item

    goal = grow(1, depth)
    for i in range(len(recipes) - 1, 0, -1):
        j = int(draw() * (i + 1))
        recipes[i], recipes[j] = recipes[j], recipes[i]
    return Book(goal, {recipe.makes: recipe for recipe in recipes}, times, tuple(materials))


def _choose(options: list[T], draw: Callable[[], float]) -> T:
    return options[int(draw() * len(options))]


# Things that lie about: to be read, and of no use. They change neither the recipes nor what an action does.


def clutter(things: int, words: int, seed: int) -> str:
    """Return a sentence on `things` things of `words` words each; "" for none.

    The generator is not the one the recipes are drawn with, so that either dial leaves the other alone.
    """
    if not things:
        return ""
    draw = random.Random(stable_seed("crafting clutter", seed)).random
    return f"Lying about: {'; '.join([_thing(words, draw) for _ in range(things)])}."


def _thing(words: int, draw: Callable[[], float]) -> str:
    """Return a noun, as many clauses of three words as fit after a look, and looks for the rest."""
    clauses = max(0, words - 2) // 3
    looks = [LOOKS[int(draw() * len(LOOKS))] for _ in range(words - 1 - 3 * clauses)]
    noun = CLUTTER[int(draw() * len(CLUTTER))]
    tail = [CLAUSES[int(draw() * len(CLAUSES))] for _ in range(clauses)]
    return " ".join([*looks, noun, *tail])

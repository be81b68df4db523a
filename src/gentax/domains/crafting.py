"""Crafting: get materials and craft what a list of made-up recipes leads to, in the action grammar of TextCraft.

The goal lists the recipes; an observation says what one has. A level says how deep the plan is and how much irrelevant
text there is to read; the two dials are independent. A task is a tree from the goal down to materials, every task with
its own. What is made by what decides the split, by a hash that does not look at the numbers: no test tree is ever seen
in training, at whatever level and not with other quantities either.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gentax.core.env import (
    Domain,
    ExpertAction,
    Level,
    StepResult,
    Task,
    TextEnv,
    content_hash,
    split_of,
    stable_seed,
)
from gentax.core.errors import UsageError, unknown

FORM = "depthD-readN or depthD-readNxW"  # for example depth3-read10x12
DEPTH = (1, 6)
THINGS = (0, 100)
WORDS = (1, 100)
_FORM = re.compile(r"depth([0-9]{1,4})-read([0-9]{1,4})(?:x([0-9]{1,4}))?")


@dataclass(frozen=True, slots=True)
class LevelSpec:
    """What every task of a level has in common."""

    depth: int  # recipes between the goal and what can be got, the goal's own included
    things: int = 0  # things that lie about, that no recipe needs
    words: int = 8  # words that describe each of them
    mixed: bool = False  # every other task is a recipe less deep

    def of(self, index: int) -> LevelSpec:
        """Return what the task of this index has."""
        return replace(self, depth=self.depth - index % 2, mixed=False) if self.mixed else self

    @property
    def shortest(self) -> int:
        """The fewest steps a plan may have."""
        return 2 * (self.depth - self.mixed)

    @property
    def longest(self) -> int:
        """The most steps a plan may have."""
        return 4 * self.depth

    @property
    def horizon(self) -> int:
        """Half as many steps again as the longest plan; where depths take turns no more than that plan, since random
        play reaches the goal of a single recipe in a few steps."""
        return self.longest if self.mixed else 6 * self.depth

    @property
    def about(self) -> str:
        read = f"{self.things} things of {self.words} words" if self.things else "nothing"
        recipes = "1 recipe" if self.depth == 1 else f"{self.depth} recipes"
        recipes = f"{self.depth - 1} or {recipes}" if self.mixed else recipes
        return f"plans of {self.shortest}-{self.longest} steps, {recipes} deep; {read} to read beside"


NAMED = {
    "shallow": LevelSpec(2, mixed=True),
    "depth1-read0": LevelSpec(1),
    "depth2-read0": LevelSpec(2),
    "depth3-read0": LevelSpec(3),
    "depth4-read0": LevelSpec(4),
    "depth2-read4": LevelSpec(2, 4),
    "depth2-read16": LevelSpec(2, 16),
    "depth4-read16": LevelSpec(4, 16),
}
DEFAULT = "shallow"
LEVELS = {name: Level(horizon=spec.horizon, about=spec.about) for name, spec in NAMED.items()}


def parse_level(level: str) -> LevelSpec:
    """Return what `level` asks for: a named level, or one spelled `depthD-readN` or `depthD-readNxW`.

    Raises:
        UsageError: a name that is neither, or numbers beyond the dials.
    """
    if level in NAMED:
        return NAMED[level]
    form = _FORM.fullmatch(level)
    if form is None:
        raise unknown("level of crafting", level, [*NAMED, FORM])
    numbers = [int(number) for number in form.groups() if number is not None]
    spec = LevelSpec(*numbers)  # type: ignore[arg-type]  # the form has as many numbers as the first fields take
    for what, value, (low, high) in (
        ("the depth", spec.depth, DEPTH),
        ("the things to read", spec.things, THINGS),
        ("their words", spec.words, WORDS),
    ):
        if not low <= value <= high:
            raise UsageError(f"level {level!r} of crafting ({FORM}): {what} must be {low} to {high}, not {value}")
    return spec


DOMAIN = Domain(
    name="crafting",
    entry="gentax.domains.crafting:Crafting",
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
class RecipeBook:
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


def generate(spec: LevelSpec, split: str, seed: int) -> RecipeBook:
    """Return the recipes that `seed` stands for."""
    draw = random.Random(seed).random
    while True:
        book = _draw(spec.depth, draw)
        if spec.shortest <= book.steps <= spec.longest and split_of(content_of(book)) == split:
            return book


def content_of(book: RecipeBook) -> str:
    """Return the hash of a set of recipes, whatever their numbers and order."""
    made = sorted((recipe.makes, *sorted([item for item, _ in recipe.needs])) for recipe in book.recipes.values())
    return content_hash("crafting", book.goal, made)


def _draw(depth: int, draw: Callable[[], float]) -> RecipeBook:
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
    return RecipeBook(goal, {recipe.makes: recipe for recipe in recipes}, times, tuple(materials))


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


TASKS = 1_000_000  # of each split of a level; every one is made when it is played
ACTION_LIMIT = 300  # characters; no longer string is looked at
INVENTORY = "inventory"
_GET = re.compile(r"get ([0-9]+) (.+)")


class Crafting(TextEnv):
    """Get materials and craft them into the goal.

    An action is `get 3 oak log`, a recipe such as `craft 2 plain rod using 3 oak log, 1 cave clay`, or `inventory`, in
    any case, with any space between words and the ingredients in any order. A material is got 1 to 6 at a time; a
    recipe is carried out once an action. What cannot be done is refused and changes nothing. The dense reward is the
    share of the crafts of the plan that is newly done.

    Args:
        level: `depth2-read0` and the other named ones, or any `depthD-readN` or `depthD-readNxW`: D recipes from the
            goal down to materials, N things lying about that nothing needs, W words to describe each.

    Raises:
        UsageError: a level that cannot be; the message says how to mend it.
    """

    domain = DOMAIN

    def __init__(self, level: str | None = None, **settings: Any) -> None:
        self._spec = parse_level(DOMAIN.default_level if level is None else level)
        super().__init__(level, **settings)

    def size(self, split: str) -> int:
        return TASKS

    def level_horizon(self) -> int:
        return self._spec.horizon

    def _reset_task(self, task: Task) -> tuple[str, str]:
        spec, seed = self._spec.of(task.index), task.seed
        self.book = book = generate(spec, task.split, seed)
        self._content = content_of(book)
        around = clutter(spec.things, spec.words, seed)
        self._after = f" {around}" if around else ""
        self.have: dict[str, int] = {}  # what one has; never a zero
        self._left = dict(book.times)  # crafts of the plan still to be done
        self._crafts = sum(book.times.values())
        self._reward_paid = 0.0  # of the dense reward
        self._gets = {f"get {n} {item}": (item, n) for item in book.materials for n in range(1, MOST + 1)}
        self._recipes = {recipe.text: recipe for recipe in book.recipes.values()}
        self._orders = {_in_order(text): recipe for text, recipe in self._recipes.items()}
        recipes = "\n".join(self._recipes)
        return f"Craft {book.goal}. Recipes:\n{recipes}", self._text("")

    def _step(self, action: str) -> StepResult:
        got = self._gets.get(action)
        recipe = None if got else self._recipes.get(action)
        if got is None and recipe is None and action != INVENTORY:
            tidy = _tidy(action)
            got, recipe = self._gets.get(tidy), self._orders.get(_in_order(tidy))
            if got is None and recipe is None and tidy != INVENTORY:
                return StepResult(self._text(self._why_not(tidy)), 0.0, False, False, False)
        if got is not None:
            item, count = got
            self.have[item] = self.have.get(item, 0) + count
            return StepResult(self._text(f"Got {count} {item}. "), 0.0, False, False, True)
        if recipe is not None:
            return self._craft(recipe)
        return StepResult(self._text(""), 0.0, False, False, True)

    def admissible(self) -> list[str]:
        crafts = [text for text, recipe in self._recipes.items() if not self._lacking(recipe)]
        return [*crafts, *self._gets, INVENTORY]

    def expert(self) -> ExpertAction | None:
        if self.task is None or self.book.goal in self.have:
            return None
        return self._towards(self.book.goal, 1, "")

    def _craft(self, recipe: Recipe) -> StepResult:
        have = self.have
        lacking = self._lacking(recipe)
        if lacking:
            return StepResult(self._text(f"You lack {_listed(lacking)}. "), 0.0, False, False, False)
        for item, count in recipe.needs:
            if have[item] == count:
                del have[item]
            else:
                have[item] -= count
        made = recipe.makes
        have[made] = have.get(made, 0) + recipe.count
        success = made == self.book.goal
        reward = 1.0 if success else 0.0
        if self.reward == "dense":
            if success:
                reward = 1.0 - self._reward_paid
            elif self._left[made]:
                reward = 1.0 / self._crafts
            self._left[made] = max(0, self._left[made] - 1)
            self._reward_paid += reward
        return StepResult(self._text(f"Crafted {recipe.count} {made}. "), reward, success, success, True)

    def _lacking(self, recipe: Recipe) -> list[tuple[str, int]]:
        have = self.have
        return [(item, count - have.get(item, 0)) for item, count in recipe.needs if have.get(item, 0) < count]

    def _towards(self, item: str, wanted: int, purpose: str) -> ExpertAction | None:
        """Return the next move towards having `wanted` of `item`; None when one has them."""
        have = self.have.get(item, 0)
        if have >= wanted:
            return None
        recipe = self.book.recipes.get(item)
        if recipe is None:
            return ExpertAction(
                f"get {min(wanted - have, MOST)} {item}", f"{purpose} needs {wanted} {item}; I have {have}."
            )
        times = -(-(wanted - have) // recipe.count)
        for needed, count in recipe.needs:  # what is crafted first, since it may use up a material of this recipe
            move = self._towards(needed, count * times, item)
            if move is not None:
                return move
        return ExpertAction(recipe.text, f"I have all that {item} needs.")

    def _text(self, said: str) -> str:
        return f"{said}You have {_listed(self.have.items()) or 'nothing'}.{self._after}"

    def _why_not(self, tidy: str) -> str:
        """Say why an action can never be done in this task."""
        get = _GET.fullmatch(tidy)
        if get is None:
            return "There is no such recipe. " if tidy.startswith("craft ") else "Unknown action. "
        if get[2] in self.book.recipes:
            return "That must be crafted. "
        return f"Get 1 to {MOST} at a time. " if get[2] in self.book.materials else "There is none to get. "


def _listed(items: Iterable[tuple[str, int]]) -> str:
    return ", ".join([f"{count} {item}" for item, count in items])


def _tidy(action: str) -> str:
    """Return an action with single spaces and small letters; "" for one too long to be any."""
    return " ".join(action.lower().split()) if len(action) <= ACTION_LIMIT else ""


def _in_order(action: str) -> str:
    """Return a craft action with its ingredients sorted."""
    head, using, needs = action.partition(" using ")
    return f"{head}{using}{', '.join(sorted(needs.split(', ')))}"

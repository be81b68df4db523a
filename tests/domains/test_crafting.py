"""Crafting: tasks, expert, rules, rewards, the two dials, and strange actions."""

from __future__ import annotations

import random

import pytest
from playing import play_expert

from gentax.core import SPLITS, Task, UsageError, split_of
from gentax.domains.crafting import (
    CLUTTER,
    LEVELS,
    MATERIALS,
    MOST,
    PRODUCTS,
    Crafting,
    content_of,
    generate,
    parse_level,
)

FIRST = """\
Craft narrow frame. Recipes:
craft 2 narrow frame using 2 curved ladder, 2 oak sand
craft 1 curved ladder using 3 meadow stone, 3 oak fibre"""


def started(level: str | None = "depth2-read0", index: int = 0, **settings) -> Crafting:
    env = Crafting(level, **settings)
    env.reset(options={"index": index, "split": "test"})
    return env


# Tasks.


def test_a_task_never_changes():
    """A golden text: whoever changes the generator changes every published figure."""
    env = started()
    assert (env.goal, env.observation) == (FIRST, "You have nothing.")


@pytest.mark.slow
def test_splits_share_no_recipe_tree_even_with_other_amounts():
    def tree(book):
        return book.goal, frozenset(
            (made, frozenset(item for item, _ in recipe.needs)) for made, recipe in book.recipes.items()
        )

    seen = {split: set() for split in SPLITS}
    for level in ("depth1-read0", "depth2-read0"):
        for split, trees in seen.items():
            for index in range(2000):
                book = generate(parse_level(level), split, Task("crafting", level, split, index).seed)
                assert split_of(content_of(book)) == split
                trees.add(tree(book))
    assert len(seen["train"]) > 3900
    assert len(set.union(*seen.values())) == sum(map(len, seen.values()))


def test_a_plan_is_as_deep_as_the_level_says():
    def depth(book, item):
        recipe = book.recipes.get(item)
        return 1 + max(depth(book, needed) for needed, _ in recipe.needs) if recipe else 0

    for deep in (1, 2, 3, 5):
        spec = parse_level(f"depth{deep}-read0")
        books = [generate(spec, "train", seed) for seed in range(100)]
        assert {depth(book, book.goal) for book in books} == {deep}
        assert all(spec.shortest <= book.steps <= spec.longest for book in books)


@pytest.mark.parametrize(("level", "count"), [("depth2-read0", 200), ("depth1-read0", 50), ("depth4-read16", 50)])
def test_expert_wins_test_tasks_by_the_plan(level, count):
    env = Crafting(level, split="test")
    lengths = set()
    for index in range(count):
        moves, rewards, success = play_expert(env, index)
        assert success
        assert all(0 < len(move.thought.split()) <= 14 for move in moves)
        assert rewards == [0.0] * (len(rewards) - 1) + [1.0]
        assert len(rewards) == env.book.steps < env.horizon
        assert env.expert() is None
        lengths.add(len(rewards))
    assert len(lengths) > 1


# Rules and text.


def test_the_text_of_an_episode():
    env = started()
    recipe = "craft 1 curved ladder using 3 meadow stone, 3 oak fibre"
    assert env.step(recipe)[0] == "You lack 3 meadow stone, 3 oak fibre. You have nothing."
    assert env.step("get 4 meadow stone")[0] == "Got 4 meadow stone. You have 4 meadow stone."
    assert env.step("get 1 oak fibre")[0] == "Got 1 oak fibre. You have 4 meadow stone, 1 oak fibre."
    assert env.step(recipe)[0].startswith("You lack 2 oak fibre. ")
    assert env.step("get 2 oak fibre")[0] == "Got 2 oak fibre. You have 4 meadow stone, 3 oak fibre."
    assert env.step(recipe)[0] == "Crafted 1 curved ladder. You have 1 meadow stone, 1 curved ladder."
    observation, reward, *_, info = env.step("inventory")
    assert (observation, reward, info["valid"]) == ("You have 1 meadow stone, 1 curved ladder.", 0.0, True)


def test_case_space_and_order_of_ingredients_do_not_matter():
    one, other = started(), started()
    for env in (one, other):
        env.step("get 3 oak fibre")
        env.step("get 3 meadow stone")
    assert one.step("craft 1 curved ladder using 3 meadow stone, 3 oak fibre") == other.step(
        "  CRAFT 1 curved\tladder using 3 oak fibre,  3 meadow stone\n"
    )


@pytest.mark.parametrize(
    ("action", "says"),
    [
        ("get 1 curved ladder", "That must be crafted."),
        ("get 7 oak sand", "Get 1 to 6 at a time."),
        ("get 0 oak sand", "Get 1 to 6 at a time."),
        (f"get {'9' * 200} oak sand", "Get 1 to 6 at a time."),
        ("get 1 gold", "There is none to get."),
        ("craft 1 narrow frame using 2 curved ladder, 2 oak sand", "There is no such recipe."),
        ("get oak sand", "Unknown action."),
        *((text, "Unknown action.") for text in ("", " ", "\0", "🧱", "get", "x" * 1_000_000, "\ud800", "{}%s\n" * 9)),
    ],
)
def test_invalid_actions_say_why_and_change_nothing(action, says):
    env = started()
    env.step("get 2 oak sand")
    observation, reward, terminated, _, info = env.step(action)
    assert observation == f"{says} You have 2 oak sand."
    assert (reward, terminated, info["valid"], info["success"]) == (0.0, False, False, False)


def test_exactly_the_admissible_actions_are_valid():
    env, rng = Crafting("depth2-read0", horizon=1000), random.Random(0)
    refused = 0
    for index in range(30):
        env.reset(options={"index": index})
        tried = [f"get {n} {item}" for n in range(MOST + 2) for item in env.book.materials]
        tried += [recipe.text for recipe in env.book.recipes.values()] + ["inventory", f"get 1 {env.book.goal}"]
        for _ in range(20):
            offered, before, action = env.admissible(), dict(env.have), rng.choice(tried)
            *_, terminated, _, info = env.step(action)
            assert info["valid"] == (action in offered)
            assert info["valid"] or env.have == before
            refused += not info["valid"]
            if terminated:
                break
    assert refused > 50


def test_dense_reward_is_the_share_of_crafts_and_sums_to_one():
    env, rng = Crafting("depth3-read0", reward="dense", horizon=60), random.Random(1)
    for index in range(60):
        env.reset(options={"index": index})
        total, over = 0.0, False
        while not over:
            # Crafting too much of anything must not be paid twice.
            crafts = [action for action in env.admissible() if action.startswith("craft")]
            action = rng.choice(crafts or env.admissible()) if index % 2 else env.expert().action
            _, reward, terminated, truncated, _ = env.step(action)
            assert reward >= 0
            assert index % 2 or (reward > 0) == action.startswith("craft")
            total, over = total + reward, terminated or truncated
        assert total == pytest.approx(1) if terminated else total < 1


# Levels.


def test_the_reading_dial_changes_only_the_text():
    spare = started("depth2-read3x12")
    sentence = spare.observation.removeprefix("You have nothing. ")
    things = sentence.removeprefix("Lying about: ").removesuffix(".").split("; ")
    assert [len(thing.split()) for thing in things] == [12] * 3
    assert spare.step("inventory")[0] == f"You have nothing. {sentence}"
    assert spare.horizon == started().horizon
    for thing in things:
        noun = next(word for word in thing.split() if word in CLUTTER)
        assert not spare.step(f"get 1 {noun}")[4]["valid"]
    assert not set(CLUTTER) & {*MATERIALS, *PRODUCTS}
    assert not set(MATERIALS) & set(PRODUCTS)
    for size in range(1, 30):
        thing = started(f"depth1-read1x{size}").observation.split("about: ")[1]
        assert len(thing.split()) == size


def test_named_levels_have_the_horizon_of_their_specification():
    for name, level in LEVELS.items():
        assert Crafting(name).horizon == level.horizon == (8 if name == "shallow" else 6 * int(name[5]))


@pytest.mark.parametrize(
    ("level", "says"),
    [
        ("depth2-raed0", "did you mean 'depth2-read0'"),
        ("easy", "depthD-readN"),
        ("depth9-read0", "the depth must be 1 to 6"),
        ("depth2-read999", "the things to read must be 0 to 100"),
        ("depth2-read4x0", "their words must be 1 to 100"),
        ("", "depthD-readN"),
    ],
)
def test_bad_levels_are_refused_with_a_suggestion(level, says):
    with pytest.raises(UsageError, match=says):
        Crafting(level)

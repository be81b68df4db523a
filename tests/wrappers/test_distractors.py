"""Distractors: how many, how often, always the same, and never of use."""

from __future__ import annotations

import random
import re

import pytest

import gentax
from gentax.core import UsageError
from gentax.wrappers import distract, distractors
from gentax.wrappers.distractors import CONTEXTUAL, GENERIC, Scene, generator, scatter, words_of

KITCHEN = (
    "You are in the middle of a room. Looking quickly around you, you see a cabinet 1, a countertop 1, and a mug 2.\n"
    "On the countertop 1, you see a jar 4, a mug 3, and a knife 1."
)
RESULTS = "Back to Search\nPage 1 (Total results: 50)\nNext >\nB01 red kite for children, $12"
PRODUCT = "Back to Search\n< Prev\nB01 red kite for children\nPrice: $12\nDescription\nBuy Now"
TEXTS = {
    "sokoban": ("Walls 2,3. Target 2,1. Box 2,2. You 1,2.", "Push the box onto the target of this 6 by 6 room."),
    "webshop": (RESULTS, "Find me a red kite for children, price lower than 20 dollars"),
    "alfworld": (KITCHEN, "put a clean plate in the fridge."),
    "sciworld": (
        "This room is called the kitchen. In it, you see:\na chair\na table. On the table is: nothing.",
        "Boil.",
    ),
    "crafting": ("Recipes: 4 planks from 1 log.\nInventory: nothing.", "craft a ladder"),
    "babyai": ("You see a red ball 2 steps ahead. You see a wall 3 steps to the left.", "go to the red ball"),
    "twx": ("You are in the kitchen. You see a fridge. To the North there is a door.", "find the coin"),
}


def scene(observation, goal="", domain="x"):
    return Scene(domain, observation, goal, words_of(goal), observation.lower())


def without(text, observation):
    """What was added to an observation, whose own parts must all be there, in order."""
    rest, added = text, ""
    for part in re.findall(r".*?(?:[.!?;]|$)", observation, re.MULTILINE):
        if part:
            before, found, rest = rest.partition(part)
            assert found, (part, text)
            added += before
    return added + rest


@pytest.mark.parametrize("name", [*CONTEXTUAL, "generic"])
def test_the_observation_itself_stays(name):
    write = GENERIC.write if name == "generic" else CONTEXTUAL[name].write
    observation, goal = TEXTS.get(name, TEXTS["twx"])
    seen = set()
    for seed in range(40):
        text = write(scene(observation, goal), 90, random.Random(seed))
        assert without(text, observation).strip()
        assert text == write(scene(observation, goal), 90, random.Random(seed))
        seen.add(text)
    assert len(seen) > 20


@pytest.mark.parametrize("name", CONTEXTUAL)
def test_what_the_goal_names_is_never_spoken_of(name):
    things = getattr(distractors, f"{name.upper()}_{'PRODUCTS' if name == 'webshop' else 'THINGS'}")
    observation, _ = TEXTS[name]
    spoken = ""
    for thing in things:
        goal = f"Bring me 2 {thing}s now" if name != "sokoban" else f"Push the {thing} of this 6 by 6 room"
        for seed in range(8):
            text = CONTEXTUAL[name].write(scene(observation, goal), 120, random.Random(seed))
            spoken += text
            assert text.lower().count(thing) == observation.lower().count(thing), goal
    assert sum(thing in spoken.lower() for thing in things) > len(things) // 2


@pytest.mark.parametrize(("volume", "lines"), [(1, 1), (10, 1), (19, 1), (20, 2), (80, 8)])
def test_sokoban_places_things_outside_the_room(volume, lines):
    observation, goal = TEXTS["sokoban"]
    for seed in range(30):
        text = distractors.sokoban(scene(observation, goal), volume, random.Random(seed))
        added = text.removeprefix(observation + "\n").split("\n")
        assert len(added) == lines
        for line in added:
            row, _column = map(int, re.search(r"at (\d+),(\d+)\.$", line).groups())
            assert row >= 6
    assert len(distractors.SOKOBAN_THINGS) == 7
    assert len(distractors.SOKOBAN_LOOKS) == 5


@pytest.mark.parametrize(("volume", "sentences"), [(11, 0), (12, 1), (200, 16), (300, 25)])
def test_alfworld_scatters_everyday_objects(volume, sentences):
    observation, goal = TEXTS["alfworld"]
    starts = set()
    for seed in range(30):
        text = distractors.alfworld(scene(observation, goal), volume, random.Random(seed))
        added = re.findall(r"An? [^.]*? (?:lies about|has been left here|is in plain sight|catches your eye)\.", text)
        assert len(added) == sentences
        for sentence in added:
            if found := re.search(r"(mug|jar)( \d+)?", sentence):
                assert int(found[2]) > {"mug": 3, "jar": 4}[found[1]]  # else it could be taken
        starts |= {text.index(sentence) for sentence in added}
    assert sentences < 2 or len(starts) > 10
    assert len(distractors.ALFWORLD_THINGS) == len(set(distractors.ALFWORLD_THINGS)) == 28
    assert len(distractors.ALFWORLD_LOOKS) == len(set(distractors.ALFWORLD_LOOKS)) == 19


@pytest.mark.parametrize(
    ("volume", "fakes", "facts", "ads"), [(1, 1, 1, 1), (30, 3, 1, 1), (75, 7, 3, 2), (300, 10, 12, 10)]
)
def test_webshop_counts(volume, fakes, facts, ads):
    def added(observation: str, seed: int) -> list[str]:
        text = distractors.webshop(scene(observation, TEXTS["webshop"][1]), volume, random.Random(seed))
        return text.removeprefix(observation).split("\n")[1:]

    for seed in range(10):
        results, product = added(RESULTS, seed), added(PRODUCT, seed)
        assert sum(line.startswith("Advertisement: ") for line in results) == ads
        assert sum(line.endswith("cannot be selected)") for line in results) == fakes == len(results) - ads
        assert sum(line.startswith("Advertisement: ") for line in product) == ads
        assert sum(line in distractors.WEBSHOP_FACTS for line in product) == facts == len(product) - ads
        assert added("WebShop. Type a query.", seed) == []
    assert (len(distractors.WEBSHOP_CATEGORIES), len(distractors.WEBSHOP_SLOGANS)) == (21, 20)
    assert (len(distractors.WEBSHOP_PRODUCTS), len(distractors.WEBSHOP_LOOKS)) == (15, 15)


@pytest.mark.parametrize("name", ["sciworld", "crafting", "babyai", "twx"])
@pytest.mark.parametrize(("volume", "sentences"), [(1, 1), (39, 1), (40, 2), (100, 5)])
def test_our_own_counts(name, volume, sentences):
    text = CONTEXTUAL[name].write(scene("Here.", "Go."), volume, random.Random(volume))
    assert text.count(".") - 1 == sentences


def test_a_glimpse_is_of_another_domain_and_as_long_as_the_volume():
    for volume in (1, 100, 300):
        for seed in range(40):
            text = distractors.generic(scene("Here.", "Go.", "sokoban"), volume, random.Random(seed))
            assert text.startswith("Here.\n")
            intro = next(intro for intro in distractors.INTRODUCTIONS if intro in text)
            glimpse = text.partition(f"{intro} ")[2]
            assert "Target " not in glimpse
            assert len(glimpse) <= volume or glimpse in "".join(
                s for t in distractors.snippets()["sciworld"] for s, _ in t
            )
    foreign = [distractors.generic(scene("Here.", "Go.", "sciworld"), 100, random.Random(seed)) for seed in range(20)]
    assert all(re.search(r"Walls|Target|Box|You", text) for text in foreign)
    assert not any(
        "Box" in distractors.generic(scene("x", "Get 1 box", "sciworld"), 100, random.Random(s)) for s in range(20)
    )


def test_sentences_are_put_between_whole_lines_and_sentences():
    places = {scatter(random.Random(seed), "One. Two.\nthree", ["X."]) for seed in range(60)}
    assert places == {
        "X.\nOne. Two.\nthree",
        "One. X. Two.\nthree",
        "One. Two.\nX.\nthree",
        "One. Two.\nthree\nX.",
    }
    assert {scatter(random.Random(seed), "One.", ["X."]) for seed in range(9)} == {"X. One.", "One. X."}


def test_the_registry_finds_families_and_falls_back():
    assert generator("twx-cooking", "contextual").name == "twx"
    assert generator("sokoban", "contextual").name == "sokoban"
    assert generator("nowhere", "contextual").name == generator("sokoban", "generic").name == "generic"
    with pytest.raises(UsageError, match="contextual"):
        generator("sokoban", "contexual")


@pytest.mark.parametrize("kind", ["contextual", "generic"])
def test_goal_and_actions_are_untouched_and_unnamed_in_sokoban(kind):
    plain, env = gentax.make("sokoban"), distract(gentax.make("sokoban"), volume=120, kind=kind)
    for index in range(10):
        observation, info = plain.reset(options={"index": index})
        text, told = env.reset(options={"index": index})
        while True:
            assert told == info
            assert text.startswith(observation + "\n")
            assert env.admissible() == plain.admissible()
            assert env.expert() == plain.expert()
            added = words_of(text.removeprefix(observation))
            assert not added & {"up", "down", "left", "right", "box", "target", "push"}
            action = plain.expert().action
            observation, _, done, _, info = plain.step(action)
            text, _, _, _, told = env.step(action)
            if done:
                break


def test_the_same_task_reads_the_same_whoever_made_it():
    def read(env, index):
        texts = [env.reset(options={"index": index})[0]]
        return texts + [env.step(action)[0] for action in ("up", "down", "left", "left")]

    one, other = distract(gentax.make("sokoban")), distract(gentax.make("sokoban"))
    first = [read(one, index) for index in range(5)]
    assert [read(other, index) for index in reversed(range(5))] == first[::-1]
    assert len({text for texts in first for text in texts}) == 25


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_probability_is_per_episode(probability):
    env = distract(gentax.make("sokoban"), volume=20, probability=probability)
    active = []
    for index in range(300):
        texts = [env.reset(options={"index": index})[0], env.step("up")[0], env.step("down")[0]]
        marked = {"out of reach" in text for text in texts}
        assert len(marked) == 1  # all of an episode or none
        active += marked
    assert sum(active) / 300 == pytest.approx(probability, abs=0.08)


def test_volume_zero_is_none_and_none_is_the_papers():
    plain = gentax.make("sokoban").reset(options={"index": 0})
    assert distract(gentax.make("sokoban"), volume=0).reset(options={"index": 0}) == plain
    assert distract(gentax.make("sokoban")).reset(options={"index": 0})[0].count("\n") == 8
    assert (CONTEXTUAL["webshop"].volume, CONTEXTUAL["alfworld"].volume) == (30, 300)

"""Renamed words, other layouts, other grammars."""

from __future__ import annotations

import json
import random
import re

import pytest

import gentax
from gentax.core import UsageError
from gentax.wrappers import Calls, Layout, Menu, Rename
from gentax.wrappers.interface_shift import LAYOUTS, NOUNS, as_json, call, listed, plural, prose, uncall

KITCHEN = """This room is called the kitchen. In it, you see:
a chair. On the chair is: nothing.
a sink, which is turned off. In the sink is: nothing.
You also see:
A door to the hallway (that is open)"""
ANYTHING = [
    "", " ", "\0", "🔥", "\ud800", "Box BOX bOx boxes Boxes", "a_box", "#.. # $box", "do()", "x\n", "é", '"', "'",
]  # fmt: skip


def some_text(rng):
    words = ["box", "Box", "boxes", "BOX", "wall", "3,4", "é", "dax", "to", " to ", ", to ", "go", "do", "\\1"]
    signs = ["#", ".", "##.", "_", "$ ", " ", "\n", "(", ")", "[", "]", '"', ","]
    return "".join(rng.choice(words + signs) for _ in range(rng.randrange(12)))


def test_words_are_renamed_everywhere_and_back():
    env = Rename(gentax.make("sokoban"), {"box": "dax", "up": "fep"})
    text, info = env.reset(options={"index": 0})
    assert re.fullmatch(r"Walls? [\d, ]+\. Target \d,\d\. Dax \d,\d\. You \d,\d\.", text)
    assert info["goal"] == "Push the dax onto the target of this 6 by 6 room."
    assert "a dax can never be pulled" in env.domain.rules
    assert "Actions: fep, down" in env.domain.rules
    assert env.domain.name == "sokoban"
    assert gentax.make("sokoban").domain.rules.count("box") == 3
    for index in range(5):
        env.reset(options={"index": index})
        while (move := env.expert()) is not None:
            assert "box" not in move.thought.lower()
            assert "up" not in env.admissible()
            assert not env.step("up")[4]["valid"]
            assert env.step(move.action)[4]["valid"]
            if env.steps > 8:
                break


def test_two_things_can_change_names():
    env = Rename(gentax.make("sokoban"), {"box": "target"})
    plain = gentax.make("sokoban").reset(options={"index": 0})[0]
    text, info = env.reset(options={"index": 0})
    assert info["goal"] == "Push the target onto the box of this 6 by 6 room."
    assert text == plain.replace("Box", "?").replace("Target", "Box").replace("?", "Target")


@pytest.mark.parametrize("domain", NOUNS)
def test_every_list_makes_a_dictionary(domain):
    for seed in range(3):
        words = Rename(gentax.make("sokoban"), NOUNS[domain], seed).pairs
        assert set(words) == set(NOUNS[domain])
        assert not set(words.values()) & set(words)
        assert all((new[0] in "aeiou") == (old[0] in "aeiou") for old, new in words.items())


def test_translating_twice_gives_anything_back():
    rng = random.Random(0)
    for seed in range(3):
        env = Rename(gentax.make("sokoban", rendering="grid"), seed=seed)
        for text in [*ANYTHING, KITCHEN, *(some_text(rng) for _ in range(400))]:
            assert env.translate(env.translate(text)) == text
    assert env.pairs == Rename(gentax.make("sokoban"), seed=2).pairs
    assert env.pairs != Rename(gentax.make("sokoban"), seed=1).pairs


def test_only_whole_words_are_renamed_and_their_case_is_kept():
    env = Rename(gentax.make("sokoban"), {"box": "dax", "entry": "vek"})
    assert env.translate("box Box BOX bOx boxer inbox boxes BOXES entries a_box-box") == (
        "dax Dax DAX bOx boxer inbox daxes DAXES veks a_dax-dax"
    )
    assert [plural(word) for word in ("box", "bench", "body", "key", "shelf", "potato")] == [
        "boxes", "benches", "bodies", "keys", "shelves", "potatoes",
    ]  # fmt: skip


def test_signs_are_renamed_in_grids_and_legends_only():
    env = Rename(gentax.make("sokoban", rendering="both"), seed=1)
    text, info = env.reset(options={"index": 0})
    prose, _, grid = text.partition("\n")
    assert prose.endswith(".")
    rows = grid.split("\n")
    assert len(rows) == 6
    assert not set("#_.$*@+") & set(grid)
    legend = dict(part.split(" ", 1) for part in info["goal"].partition("Legend: ")[2].rstrip(".").split(", "))
    assert set(rows[0]) <= set(legend)
    assert legend[rows[0][0]] == env.pairs["wall"]


def test_a_domain_without_a_list_needs_words(toy):
    with pytest.raises(UsageError, match=r"words=\[\.\.\.\]"):
        Rename(toy())


def test_layouts():
    assert listed(KITCHEN).split("\n")[:4] == [
        "- This room is called the kitchen.",
        "- In it, you see:",
        "- a chair.",
        "- On the chair is: nothing.",
    ]
    assert prose(KITCHEN).startswith(
        "This room is called the kitchen. In it, you see: a chair. On the chair is: nothing."
    )
    assert json.loads(as_json(KITCHEN)) == {
        "text": "This room is called the kitchen.",
        "In it, you see": ["a chair.", "a sink, which is turned off."],
        "On the chair is": "nothing.",
        "In the sink is": "nothing.",
        "You also see": "A door to the hallway (that is open)",
    }
    assert json.loads(as_json("Walls 2,3 3,4. Box 2,2. You 1,2.")) == {"Walls": "2,3 3,4", "Box": "2,2", "You": "1,2"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_layout_loses_a_word_or_breaks(layout):
    for text in (KITCHEN, "Blocked. Walls 2,3. Box 2,2. You 1,2.", "", ":", ": :", "\n\n", "a: b: c", ".", *ANYTHING):
        shown = LAYOUTS[layout](text)
        assert set(re.findall(r"\w+", text)) <= set(re.findall(r"\w+", shown))
    with pytest.raises(UsageError, match="json"):
        Layout(gentax.make("sokoban"), "jsno")


@pytest.mark.parametrize(
    ("action", "written"),
    [
        ("up", "up()"),
        ("pick up", "pick_up()"),
        ("turn left", "turn(left)"),
        ("go to shelf 1", "go_to(shelf 1)"),
        ("move frog egg to purple box", "move(frog egg, to purple box)"),
        ("use thermometer in inventory on water", "use(thermometer, in inventory, on water)"),
        ("search[red shoes, size 9]", 'search("red shoes, size 9")'),
        ("craft 4 planks using 1 log", "craft(4 planks, using 1 log)"),
        ("do(it)", "do(do(it))"),
        ("", "do()"),
    ],
)
def test_calls(action, written):
    assert call(action) == written
    assert uncall(written) == action


def test_every_string_can_be_called():
    rng = random.Random(1)
    for text in [*ANYTHING, *(some_text(rng) for _ in range(2000)), "x" * 100_000, " (" * 50_000, ") " * 50_000]:
        assert uncall(call(text)) == text
    for text in ("up", "go to shelf 1", "up() down()x", "", "up("):
        assert uncall(text) is None


def test_the_old_grammar_is_refused():
    for env in (Calls(gentax.make("sokoban")), Menu(gentax.make("sokoban"))):
        env.reset(options={"index": 0})
        for action in ("up", "down", "left", "right"):
            assert not env.step(action)[4]["valid"]


def test_a_menu():
    env = Menu(gentax.make("sokoban"))
    plain = gentax.make("sokoban")
    observation = plain.reset(options={"index": 0})[0]
    text = env.reset(options={"index": 0})[0]
    listed = plain.admissible()
    lines = [f"{number} {action}" for number, action in enumerate(listed, 1)]
    assert text == "\n".join([observation, *lines, "0 ACTION for any other action"])
    assert env.admissible() == [str(n) for n in range(1, len(listed) + 1)]
    assert "numbered list" in env.domain.rules
    assert env.step(" 1 ")[4]["valid"]
    plain.step(listed[0])
    assert env.unwrapped.state == plain.state
    assert env.step(f"0 {plain.admissible()[0]}")[4]["valid"]


def test_a_menu_needs_a_list_of_actions(toy, monkeypatch):
    monkeypatch.setattr(toy, "admissible", lambda self: None)
    with pytest.raises(UsageError, match="does not list"):
        Menu(toy()).reset(options={"index": 0})


def test_a_long_menu_is_cut_and_the_rest_can_be_said(toy, monkeypatch):
    monkeypatch.setattr(toy, "admissible", lambda self: [f"word {n}" for n in range(60)] + [self.word])
    env = Menu(toy())
    env.reset(options={"index": 0})
    assert len(env.observation.split("\n")) == 42
    assert len(env.admissible()) == 61
    assert env.expert().action == f"0 {env.unwrapped.word}"
    assert env.step(env.expert().action)[4]["valid"]

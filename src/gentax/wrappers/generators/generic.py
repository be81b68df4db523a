"""Any domain: a glimpse of another domain's state, at most `volume` characters of it but at least a sentence.

The glimpses are real observations (`snippets.json`, made by `bank.py`). A sentence is left out if the goal or the
observation has one of its words, and the whole glimpse if nothing of it is left. Like the paper's, glimpses show the
agent text of domains that it may later be tested on; contextual distractors do not.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from random import Random

from gentax.wrappers.generators.scene import Scene, appended, one, words_of

INTRODUCTIONS = (
    "Seen in passing, somewhere else:",
    "On a screen in the background:",
    "A note from another game reads:",
    "You overhear someone describe another place:",
)
TRIES = 4  # glimpses looked at before the observation is left as it is
# Words that name nothing.
PLAIN = words_of(
    "a an the this that it its in on of to is are was be and or you i we with from by at as for not no than then also "
    "see here there what which called where have has can all any each every one two first next your my"
)

Snippet = tuple[tuple[str, frozenset[str]], ...]  # sentences, each with its words


def write(scene: Scene, volume: int, rng: Random) -> str:
    known = scene.goal_words | words_of(scene.observation)
    foreign = [name for name in snippets() if name != scene.domain]
    for _ in range(TRIES):
        snippet = one(rng, snippets()[one(rng, foreign)])
        start = int(rng.random() * len(snippet))
        shown, length = [], 0
        for sentence, words in (*snippet[start:], *snippet[:start]):
            if shown and length + len(sentence) > volume:
                break
            if words.isdisjoint(known):
                shown.append(sentence)
                length += len(sentence) + 1
        if shown:
            return appended(scene.observation, [f"{one(rng, INTRODUCTIONS)} {' '.join(shown)}"])
    return scene.observation


@cache
def snippets() -> dict[str, tuple[Snippet, ...]]:
    """Return the glimpses of each domain that there are any of."""
    stored = json.loads((files(__package__) / "snippets.json").read_text(encoding="utf-8"))
    return {name: tuple(map(_cut, texts)) for name, texts in stored.items()}


def _cut(text: str) -> Snippet:
    # A line without an end of its own becomes a sentence, so that lines can stand side by side.
    lines = (line if line[-1] in ".!?" else f"{line}." for line in text.split("\n"))
    sentences = [sentence for line in lines for sentence in re.split(r"(?<=[.!?]) ", line)]
    return tuple((sentence, words_of(sentence) - PLAIN) for sentence in sentences)

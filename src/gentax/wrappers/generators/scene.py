"""What a generator is shown, and the few things all of them do: draw what may be named, and put it into the text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple, TypeVar

_Option = TypeVar("_Option")
_WORD = re.compile(r"[^\W_]+")
_SENTENCE = re.compile(r"(?<=[.!?;])[ \n]+|\n+")


class Scene(NamedTuple):
    """One observation of an episode, before anything is added."""

    domain: str
    observation: str
    goal: str
    goal_words: frozenset[str]  # see `words_of`
    named: str  # in lower case, the observation and the admissible actions (see `Generator.asks`)

    def free(self, thing: str) -> bool:
        """Whether nothing that can be acted on is called `thing` (lower case, singular) or by a word of it."""
        return thing not in self.named and self.goal_words.isdisjoint(thing.split())

    def draw(self, rng: Random, things: Sequence[str]) -> str | None:
        """Draw a free one of `things`, or return None when there is none."""
        start = int(rng.random() * len(things))
        for thing in (*things[start:], *things[:start]):
            if self.free(thing):
                return thing
        return None


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text in lower case, plurals as their singular too."""
    words = {word.lower() for word in _WORD.findall(text)}
    words |= {word[:-1] for word in words if word.endswith("s")} | {word[:-2] for word in words if word.endswith("es")}
    return frozenset(words)


def one(rng: Random, options: Sequence[_Option]) -> _Option:
    """Draw one of `options`."""
    return options[int(rng.random() * len(options))]


def a(words: str) -> str:
    """Return `words` with the indefinite article."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def appended(observation: str, lines: Iterable[str]) -> str:
    """Return the observation with each line on a line of its own after it."""
    return "\n".join((observation, *lines))


def scattered(rng: Random, observation: str, sentences: Iterable[str]) -> str:
    """Return the observation with each sentence at a random one of its sentence or line ends, or before it all.

    Between lines it becomes a line.
    """
    ends = [0, *(match.end() for match in _SENTENCE.finditer(observation)), len(observation)]
    put: dict[int, list[str]] = {}
    for sentence in sentences:
        put.setdefault(one(rng, ends), []).append(sentence)
    parts, done = [], 0
    for end in sorted(put):
        last = end == len(observation)
        between = "\n" if "\n" in observation and (last or observation[end - 1 : end] in ("", "\n")) else " "
        text = between.join(put[end])
        parts += [observation[done:end], f"{between}{text}" if last and end else f"{text}{between}"]
        done = end
    return "".join((*parts, observation[done:]))


def remarked(
    rng: Random, scene: Scene, count: int, things: Sequence[str], looks: Sequence[str], remarks: Sequence[str]
) -> str:
    """Return the observation with `count` remarks scattered over it, fewer where no thing is free.

    A remark holds a {}, for a thing with a look.
    """
    drawn = [scene.draw(rng, things) for _ in range(count)]
    lines = [one(rng, remarks).format(a(f"{one(rng, looks)} {thing}")) for thing in drawn if thing is not None]
    return scattered(rng, scene.observation, lines)

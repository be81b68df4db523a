"""What is to be done: a task, named so that the same name is the same episode start on every machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

SPLITS = ("train", "validation", "test")
_EIGHTHS = ("train",) * 5 + ("validation",) + ("test",) * 2  # twice as many to test on as to tune on


@dataclass(frozen=True, slots=True, order=True)
class Task:
    """One task of a domain. `index` counts from 0 within (domain, level, split)."""

    domain: str
    level: str
    split: str
    index: int

    @property
    def id(self) -> str:
        """The task as one word, for example `sokoban/6x6/test/17`."""
        return f"{self.domain}/{self.level}/{self.split}/{self.index}"

    @property
    def seed(self) -> int:
        """A 64-bit seed that depends on the task alone, so that it is the same in every process and version."""
        return stable_seed(self.id)

    @classmethod
    def parse(cls, id: str) -> Task:
        """Read a task back from its `id`. Raises ValueError when `id` is not of that form."""
        domain, level, split, index = id.rsplit("/", 3)  # the name of another library's environment may hold slashes
        return cls(domain, level, split, int(index))


def stable_seed(*parts: object) -> int:
    """Hash `parts` to 64 bits, alike on every machine (unlike `hash`)."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def content_hash(*parts: object) -> str:
    """Hash what a task is made of (a room, a product, a set of recipes) to 16 hexadecimal digits."""
    return f"{stable_seed(*parts):016x}"


def split_of(content: str) -> str:
    """Return the split that a content (`content_hash`) belongs to: 5/8 train, 1/8 validation, 1/4 test.

    A domain that asks this of every task has splits that share no content, whatever level or seed a task has.
    """
    return _EIGHTHS[int(content, 16) % 8]

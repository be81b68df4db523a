"""What is true in a game, and the conjunctive queries that the grammar asks of it.

The package makes an object of every fact and remembers it for the life of the process, so that memory grows with every
game. Here facts are tuples in sets, and go with their game.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

Placeholder = tuple[str, str]  # name, type
Binding = dict[Placeholder, str]
Query = tuple[tuple[str, tuple[Placeholder, ...]], ...]  # predicates with their placeholders
Arguments = tuple[str, ...]


class Facts:
    """Facts by predicate and types of the arguments.

    Args:
        types: the type of each thing.
        known: facts as (predicate, arguments).
    """

    def __init__(self, types: Mapping[str, str], known: Iterable[tuple[str, Arguments]]) -> None:
        self._types = types
        self._facts: defaultdict[tuple[str, Arguments], set[Arguments]] = defaultdict(set)
        for name, arguments in known:
            self._of(name, arguments).add(arguments)

    def change(self, name: str, arguments: Arguments) -> None:
        """Make a fact true; `not_` before its name is its negation, and the other of the two becomes false."""
        other = name.removeprefix("not_") if name.startswith("not_") else f"not_{name}"
        self._of(other, arguments).discard(arguments)
        self._of(name, arguments).add(arguments)

    def holds(self, name: str, *arguments: str) -> bool:
        """Return whether a fact is true."""
        return arguments in self._of(name, arguments)

    def all(self, name: str) -> Iterator[Arguments]:
        """Yield the arguments of every fact of a predicate, in order."""
        for (known, _), found in list(self._facts.items()):
            if known == name:
                yield from sorted(found)

    def matches(self, query: Query, binding: Binding) -> Iterator[Binding]:
        """Yield every way to fill the placeholders of `query` that `binding` leaves open, in order.

        As in the package, two placeholders never stand for the same thing.
        """
        return self._matches(query, 0, dict(binding), set(binding.values()))

    def _matches(self, query: Query, depth: int, binding: Binding, used: set[str]) -> Iterator[Binding]:
        if depth == len(query):
            yield dict(binding)
            return
        name, placeholders = query[depth]
        bound = [(at, binding[one]) for at, one in enumerate(placeholders) if one in binding]
        facts = self._facts.get((name, tuple([type_ for _, type_ in placeholders])), ())
        for arguments in sorted([fact for fact in facts if all(fact[at] == thing for at, thing in bound)]):
            new = []
            for one, thing in zip(placeholders, arguments, strict=True):
                if one not in binding:
                    if thing in used:
                        break
                    binding[one] = thing
                    used.add(thing)
                    new.append(one)
                elif binding[one] != thing:
                    break
            else:
                yield from self._matches(query, depth + 1, binding, used)
            for one in new:
                used.discard(binding.pop(one))

    def _of(self, name: str, arguments: Arguments) -> set[Arguments]:
        return self._facts[name, tuple([self._types[one] for one in arguments])]

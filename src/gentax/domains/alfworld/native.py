"""The planner's library, which holds the state of one game at a time: games take turns in it.

The packages load a copy of it for every environment, 34 MB each. Here is one for the process. A game that was not the
last to be played is loaded again, in a fraction of a millisecond for a small home, and its steps are made again.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol


class Operator(NamedTuple):
    """A ground action that the rules allow now."""

    number: int
    name: str  # of the action and its arguments, separated by spaces
    effects: int  # how many atoms it changes


class Played(Protocol):
    """A game as the library needs it to come back to its present state."""

    sas: bytes
    history: list[int]


class Library:
    """The one copy of the library. Its methods may be called from any thread."""

    def __init__(self) -> None:
        import fast_downward

        self._types = fast_downward
        self._lib = fast_downward.load_lib()
        self._lock = threading.RLock()
        self._playing: Played | None = None

    def start(self, game: Played) -> list[str]:
        """Load a game; return the atoms of its first state, in PDDL."""
        with self._lock:
            self._enter(game)
            atoms = (self._types.Atom * self._lib.get_state_size())()
            self._lib.get_state(atoms)
            return [atom.name for atom in atoms]

    def operators(self, game: Played) -> list[Operator]:
        """Return what can be done now."""
        with self._lock:
            self._enter(game)
            found = (self._types.Operator * self._lib.get_applicable_operators_count())()
            self._lib.get_applicable_operators(found)
            return [Operator(one.id, one.name, one.nb_effect_atoms) for one in found]

    def apply(self, game: Played, operator: Operator) -> Sequence[str]:
        """Do one of the `operators`; return the atoms it changes, in PDDL."""
        with self._lock:
            self._enter(game)
            atoms = (self._types.Atom * operator.effects)()
            self._lib.apply_operator(operator.number, atoms)
            game.history.append(operator.number)
            return [atom.name for atom in atoms]

    def won(self, game: Played) -> bool:
        """Return whether the goal is reached."""
        with self._lock:
            self._enter(game)
            return self._lib.check_goal()

    def leave(self, game: Played) -> None:
        """Free what the library holds of a game."""
        with self._lock:
            if self._playing is game:
                self._playing = None
                self._lib.cleanup()

    def _enter(self, game: Played) -> None:
        if self._playing is not game:
            self._playing = None
            self._lib.load_sas(game.sas)
            for number in game.history:
                self._lib.apply_operator(number, None)
            self._playing = game


@cache
def library() -> Library:
    """Return the process's library."""
    return Library()


_translating = threading.Lock()


def translate(domain: str, problem: str) -> tuple[Any, bytes]:
    """Ground a problem; return the package's task, and what the library loads.

    The translator reads its options from the command line, so the package puts one of its own into `sys.argv`.
    """
    import fast_downward

    with _translating:
        arguments = sys.argv
        try:
            task, sas = fast_downward.pddl2sas(domain, problem)
        finally:
            sys.argv = arguments
    return task, sas.encode()

"""A game in the engine: the planner's library decides what is possible, the grammar what is said.

What the package works out anew at every step is worked out once: the command of each ground action, of which all facts
are constant, and the parsed grammar. Observations and commands are the package's own, word for word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any, NamedTuple

from gentax.domains.alfworld.facts import Arguments, Facts
from gentax.domains.alfworld.grammar import Entity, Grammar
from gentax.domains.alfworld.names import named
from gentax.domains.alfworld.native import Operator, library, translate
from gentax.domains.alfworld.package import rules, wording

NOTHING = "Nothing happens."  # the engine's answer to all it does not know
KEPT = 64  # translated problems that are remembered: 0.1 MB each for a small home, up to 3 MB for a whole one


class Translated(NamedTuple):
    """A problem, grounded."""

    sas: bytes
    types: Mapping[str, str]  # of its things
    known: tuple[tuple[str, Arguments], ...]  # true at the start and without a variable in the library
    parameters: Mapping[str, tuple[tuple[str, str], ...]]  # (name, type) of each action's


class Game:
    """A game from its start on.

    Args:
        problem: the start and the goal, in PDDL.
    """

    def __init__(self, problem: str) -> None:
        translated = _translated(problem)
        self.sas, self._parameters = translated.sas, translated.parameters
        self.history: list[int] = []
        start = [fact for atom in library().start(self) if (fact := _fact(atom)) and not fact[0].startswith("not_")]
        self.facts = Facts(translated.types, (*translated.known, *start))
        self.names = named(translated.types)
        self._entities = {id: Entity(id, name) for id, name in self.names.items()}
        self._spelled: dict[str, str] = {}  # commands by name of the operator
        self.won = False
        self._gather()

    @property
    def commands(self) -> list[str]:
        """What can be done now, in order."""
        return sorted(self._operators)

    def look(self) -> str:
        """Return what the engine says of where the player is."""
        return self._derive("#look.feedback#", {})

    def meaning(self, command: str) -> tuple[str, Arguments] | None:
        """Return the action behind one of the `commands` and its arguments; None for any other."""
        operator = self._operators.get(command)
        if operator is None:
            return None
        action, *arguments = operator.name.split()
        return action, tuple(arguments)

    def do(self, command: str) -> str:
        """Do one of the `commands`; return what the engine says. Any other changes nothing."""
        operator = self._operators.get(command)
        if operator is None:
            return NOTHING
        for atom in library().apply(self, operator):
            self.facts.change(*_fact(atom))
        action, binding = self._bound(operator)
        said = self._derive(_grammar().verbs[action].feedback, binding)
        self._gather()
        return said

    def close(self) -> None:
        """Free what the library holds of the game."""
        library().leave(self)

    def _gather(self) -> None:
        self.won = library().won(self)
        self._operators: dict[str, Operator] = {}
        for operator in library().operators(self):
            self._operators.setdefault(self._command(operator), operator)

    def _command(self, operator: Operator) -> str:
        spelled = self._spelled.get(operator.name)
        if spelled is None:
            action, binding = self._bound(operator)
            spelled = self._spelled[operator.name] = self._derive(_grammar().verbs[action].template, binding)
        return spelled

    def _bound(self, operator: Operator) -> tuple[str, dict[tuple[str, str], str]]:
        action, *arguments = operator.name.split()
        # The translator adds parameters for what the rules say exists, after those that an operator's name has.
        return action, dict(zip(self._parameters[action], arguments, strict=False))

    def _derive(self, text: str, binding: dict[tuple[str, str], str]) -> str:
        return _grammar().derive(text, self.facts, self._entities, binding)


def _fact(atom: str) -> tuple[str, Arguments] | None:
    """Read an atom as the library writes it; None where a variable has no value."""
    sign, _, rest = atom.partition(" ")
    name, _, listed = rest.partition("(")
    if not name:
        return None
    arguments = tuple([one for one in listed.rstrip(")").split(", ") if one])
    return f"not_{name}" if sign == "NegatedAtom" else name, arguments


@cache
def _grammar() -> Grammar:
    return Grammar(wording())


@lru_cache(maxsize=KEPT)
def _translated(problem: str) -> Translated:
    task, sas = translate(rules(), problem)
    types = {one.name: one.type_name for one in task.objects}
    return Translated(
        sas,
        types,
        tuple(_atoms(task.init)),
        {
            action.name: tuple((one.name.strip("?"), one.type_name) for one in action.parameters)
            for action in task.actions
        },
    )


def _atoms(init: Iterable[Any]) -> Iterable[tuple[str, Arguments]]:
    for one in init:
        if getattr(one, "predicate", "=") != "=":  # left out: costs, and that each thing is itself
            yield one.predicate, tuple(one.args)

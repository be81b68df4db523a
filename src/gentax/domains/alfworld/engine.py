"""A game in the packages' engine: the planner's library decides what is possible, the grammar what is said."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from types import CodeType
from typing import Any, NamedTuple

import fast_downward
from textworld.envs.pddl import textgen
from textworld.envs.pddl.logic import GameLogic
from textworld.logic import Rule

from gentax.core.errors import EnvironmentFault, type_and_message
from gentax.domains.alfworld.homes import display_names, rules, wording

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

    def value(self, name: str, thing: str) -> str | None:
        """Return what a predicate of two arguments says of a thing; the first in order."""
        return next((value for one, value in self.all(name) if one == thing), None)

    def having(self, name: str, value: str) -> list[str]:
        """Return the things of which a predicate of two arguments says `value`, in order."""
        return [thing for thing, one in self.all(name) if one == value]

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


class Entity(NamedTuple):
    """A thing as the grammar's expressions see it."""

    id: str
    name: str
    definite: str = "the"
    indefinite: str = "a"

    def __str__(self) -> str:
        return self.name


class Grammar:
    """Derives the engine's texts for one game, word for word as the package does.

    The package parses each expression again at every use and copies all that is known along with every symbol. Here the
    grammar is parsed once, and a text is derived by recursion.

    Args:
        facts: what is true.
        entities: every thing by its name in the facts.
    """

    def __init__(self, facts: Facts, entities: Mapping[str, Entity]) -> None:
        self._facts, self._entities = facts, entities

    def derive(self, text: str, binding: Binding) -> str:
        """Derive `text`, such as "#look.feedback#": rules, lists and expressions on what placeholders stand for."""
        return self._text(_symbols(text), binding)

    def _text(self, symbols: Iterable[Any], binding: Binding) -> str:
        return "".join([part for symbol in symbols for part in self._parts(symbol, binding)])

    def _parts(self, symbol: Any, binding: Binding) -> list[str]:
        """Return what a symbol becomes: one text, or as many as there are ways to fill its condition."""
        if isinstance(symbol, textgen.NonterminalSymbol):
            return [self._named(symbol.symbol, binding)]
        if isinstance(symbol, textgen.ListSymbol):
            return [self._listed(self._parts(symbol.symbol, binding), binding)]
        if isinstance(symbol, textgen.ConditionalSymbol):
            found = self._facts.matches(_query(symbol.given), binding) if symbol.given else [binding]
            return [self._text([symbol.expression], one) for one in found]
        if isinstance(symbol, textgen.EvalSymbol):
            known = {name: self._entities[thing] for (name, _), thing in binding.items()}
            return [str(eval(_compiled(symbol.expression), {}, known))]
        return [str(symbol.symbol)]

    def _named(self, name: str, binding: Binding) -> str:
        for rule in _parsed().grammar._rules.get(name, ()):
            if not rule.condition or any(True for _ in self._facts.matches(_query(rule.condition), binding)):
                return self._text(rule.rhs, binding)
        raise EnvironmentFault(f"the grammar has no rule {name!r} for this state")

    def _listed(self, items: list[str], binding: Binding) -> str:
        if not items:
            return self._named("list_empty", binding)
        if len(items) == 1:
            return items[0]
        comma, last = self._named("list_separator", binding), self._named("list_last_separator", binding)
        return f"{comma.join(items[:-1])}{last}{items[-1]}"


@cache
def _parsed() -> GameLogic:
    return GameLogic(domain="", grammar=wording())


# Each remembers the expressions of a grammar, and so is bounded by its length.


@cache
def _symbols(text: str) -> tuple[Any, ...]:
    return tuple(textgen._parse_and_convert(text, rule_name="symbols"))


@cache
def _compiled(expression: str) -> CodeType:
    return compile(expression, "<grammar>", "eval")


@cache
def _query(expression: str) -> Query:
    rule = Rule.parse_conjunctive_query(expression)
    return tuple(
        (predicate.name, tuple((one.name, one.type) for one in predicate.parameters))
        for predicate in rule.preconditions
    )


class Operator(NamedTuple):
    """A ground action that the rules allow now."""

    number: int
    name: str  # of the action and its arguments, separated by spaces
    effects: int  # how many atoms it changes


class Library:
    """The planner's library, which holds the state of one game at a time: games take turns in it, from any thread.

    The packages load a copy of it for every environment, 34 MB each; here is one for the process. A game that was not
    the last to be played is loaded again, in a fraction of a millisecond for a small home, and its steps made again.
    """

    def __init__(self) -> None:
        self._lib = fast_downward.load_lib()
        self._lock = threading.RLock()
        self._playing: Game | None = None

    @contextmanager
    def turn(self, game: Game) -> Iterator[Any]:
        """Yield the package's library with `game` in its present state."""
        with self._lock:
            if self._playing is not game:
                self._playing = None
                self._lib.load_sas(game.sas)
                for number in game.history:
                    self._lib.apply_operator(number, None)
                self._playing = game
            yield self._lib

    def leave(self, game: Game) -> None:
        """Free what the library holds of a game."""
        with self._lock:
            if self._playing is game:
                self._playing = None
                self._lib.cleanup()


@cache
def library() -> Library:
    """Return the process's library."""
    return Library()


NOTHING = "Nothing happens."  # the engine's answer to all it does not know
KEPT = 64  # translated problems that are remembered: 0.1 MB each for a small home, up to 3 MB for a whole one


class Game:
    """A game from its start on: the planner's library decides what is possible, the grammar what is said.

    What the package works out anew at every step is worked out once: the command of each ground action, and the facts
    that are constant. Observations and commands are the package's own, word for word.

    Args:
        problem: the start and the goal, in PDDL.
    """

    def __init__(self, problem: str) -> None:
        translated = _translated(problem)
        self.sas, self._parameters = translated.sas, translated.parameters
        self.history: list[int] = []
        with library().turn(self) as lib:
            atoms = (fast_downward.Atom * lib.get_state_size())()
            lib.get_state(atoms)
            start = [fact for atom in atoms if (fact := _fact(atom.name)) and not fact[0].startswith("not_")]
        self.facts = Facts(translated.types, (*translated.known, *start))
        self.names = display_names(translated.types)
        self._grammar = Grammar(self.facts, {id: Entity(id, name) for id, name in self.names.items()})
        self._spelled: dict[str, str] = {}  # commands by name of the operator
        self.won = False
        self._gather()

    @property
    def commands(self) -> list[str]:
        """What can be done now, in order."""
        return sorted(self._operators)

    def look(self) -> str:
        """Return what the engine says of where the player is."""
        return self._grammar.derive("#look.feedback#", {})

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
        with library().turn(self) as lib:
            atoms = (fast_downward.Atom * operator.effects)()
            lib.apply_operator(operator.number, atoms)
            self.history.append(operator.number)
            for atom in atoms:
                self.facts.change(*_fact(atom.name))
        said = self._said(operator, "feedback_rule")
        self._gather()
        return said

    def close(self) -> None:
        """Free what the library holds of the game."""
        library().leave(self)

    def _gather(self) -> None:
        with library().turn(self) as lib:
            self.won = lib.check_goal()
            found = (fast_downward.Operator * lib.get_applicable_operators_count())()
            lib.get_applicable_operators(found)
            operators = [Operator(one.id, one.name, one.nb_effect_atoms) for one in found]
        self._operators: dict[str, Operator] = {}
        for operator in operators:
            if operator.name not in self._spelled:
                self._spelled[operator.name] = self._said(operator, "template")
            self._operators.setdefault(self._spelled[operator.name], operator)

    def _said(self, operator: Operator, what: str) -> str:
        """Derive what the grammar says of an action: the `template` of its command, or its `feedback_rule`."""
        action, *arguments = operator.name.split()
        # The translator adds parameters for what the rules say exists, after those that an operator's name has.
        binding = dict(zip(self._parameters[action], arguments, strict=False))
        return self._grammar.derive(getattr(_parsed().actions[action], what), binding)


class _Translated(NamedTuple):
    """A problem, grounded."""

    sas: bytes  # what the library loads
    types: Mapping[str, str]  # of its things
    known: tuple[tuple[str, Arguments], ...]  # true at the start and without a variable in the library
    parameters: Mapping[str, tuple[Placeholder, ...]]  # of each action


_translating = threading.Lock()


@lru_cache(maxsize=KEPT)
def _translated(problem: str) -> _Translated:
    with _translating:
        arguments = sys.argv  # the translator reads its options there, so the package puts some of its own into it
        try:
            task, sas = fast_downward.pddl2sas(rules(), problem)
        except (Exception, SystemExit) as error:  # the translator ends the process on some mistakes of a file
            why = type_and_message(error, 200)
            raise EnvironmentFault(f"the planner cannot read this game: {why}") from None
        finally:
            sys.argv = arguments
    return _Translated(
        sas.encode(),
        {one.name: one.type_name for one in task.objects},
        # Left out: costs, and that each thing is itself.
        tuple((one.predicate, tuple(one.args)) for one in task.init if getattr(one, "predicate", "=") != "="),
        {action.name: tuple((p.name.strip("?"), p.type_name) for p in action.parameters) for action in task.actions},
    )


def _fact(atom: str) -> tuple[str, Arguments] | None:
    """Read an atom as the library writes it; None where a variable has no value."""
    sign, _, rest = atom.partition(" ")
    name, _, listed = rest.partition("(")
    if not name:
        return None
    arguments = tuple([one for one in listed.rstrip(")").split(", ") if one])
    return f"not_{name}" if sign == "NegatedAtom" else name, arguments

"""The engine's texts: the grammar as the package parses it, derived word for word as the package does.

The package parses each expression again at every use and copies all that is known along with every symbol. Here a
grammar is parsed once, and a text is derived by recursion.
"""

from __future__ import annotations

from functools import cache
from types import CodeType
from typing import Any, NamedTuple

from textworld.envs.pddl import textgen
from textworld.envs.pddl.logic import GameLogic
from textworld.logic import Rule

from gentax.core.errors import EnvironmentFault
from gentax.domains.alfworld.facts import Binding, Facts, Query


class Entity:
    """A thing as the grammar's expressions see it."""

    __slots__ = ("definite", "id", "indefinite", "name")

    def __init__(self, id: str, name: str) -> None:
        self.id, self.name = id, name
        self.definite, self.indefinite = "the", "a"

    def __str__(self) -> str:
        return self.name


class Verb(NamedTuple):
    """An action as the grammar knows it."""

    template: str  # of its command
    feedback: str


class Grammar:
    """The parsed grammar. It is shared by all games and holds nothing of any of them."""

    def __init__(self, text: str) -> None:
        logic = GameLogic(domain="", grammar=text)
        self._rules = dict(logic.grammar._rules)
        self.verbs = {name: Verb(one.template, one.feedback_rule) for name, one in logic.actions.items()}

    def derive(self, text: str, facts: Facts, entities: dict[str, Entity], binding: Binding) -> str:
        """Derive `text`, which may name rules (`#rule#`), lists and expressions.

        Args:
            text: for example "#look.feedback#".
            facts: what is true.
            entities: every thing by its name in the facts.
            binding: things that placeholders stand for.
        """
        return _Derivation(self._rules, facts, entities).text(_symbols(text), binding)


class _Derivation:
    def __init__(self, rules: dict[str, list[Any]], facts: Facts, entities: dict[str, Entity]) -> None:
        self._rules, self._facts, self._entities = rules, facts, entities

    def text(self, symbols: Any, binding: Binding) -> str:
        return "".join([part for symbol in symbols for part in self._parts(symbol, binding)])

    def _parts(self, symbol: Any, binding: Binding) -> list[str]:
        """Return what a symbol becomes: one text, or as many as there are ways to fill its condition."""
        if isinstance(symbol, textgen.NonterminalSymbol):
            return [self._named(symbol.symbol, binding)]
        if isinstance(symbol, textgen.ListSymbol):
            return [self._listed(self._parts(symbol.symbol, binding), binding)]
        if isinstance(symbol, textgen.ConditionalSymbol):
            found = self._facts.matches(_query(symbol.given), binding) if symbol.given else [binding]
            return [self.text([symbol.expression], one) for one in found]
        if isinstance(symbol, textgen.EvalSymbol):
            known = {name: self._entities[thing] for (name, _), thing in binding.items()}
            return [str(eval(_compiled(symbol.expression), {}, known))]
        return [str(symbol.symbol)]

    def _named(self, name: str, binding: Binding) -> str:
        for rule in self._rules.get(name, ()):
            if not rule.condition or any(True for _ in self._facts.matches(_query(rule.condition), binding)):
                return self.text(rule.rhs, binding)
        raise EnvironmentFault(f"the grammar has no rule {name!r} for this state")

    def _listed(self, items: list[str], binding: Binding) -> str:
        if not items:
            return self._named("list_empty", binding)
        if len(items) == 1:
            return items[0]
        comma, last = self._named("list_separator", binding), self._named("list_last_separator", binding)
        return f"{comma.join(items[:-1])}{last}{items[-1]}"


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

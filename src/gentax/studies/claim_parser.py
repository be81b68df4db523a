"""Claims that a study states about its arms, as text such as `tax(distractors) < tax(plain) on untouched`.

The grammar, in which a name is an arm or a domain and stands in quotes where it has spaces or signs in it:

    claim   = side ("<" | "<=" | ">" | ">=") side
    side    = (measure "(" name {"," name} ")" | number ["%" | "points"]) ["on" where]
    measure = "tax" | "gain" | "drop" | "tax_rate" | "tax_removed" | "success"
    where   = "untouched" | "touched" | "all" | domain {"," domain}

A measure takes an arm, the source where the study has several, and a target in place of `on TARGET`. `success` takes
`base` and `random` as well. Without `on` a measure is over the untouched targets, as verdicts are. What one side leaves
open (the source, `on`) is as on the other side, and both sides are over the same targets: those that are neither's
source, and that training touched on neither side. A claim that names none of several sources is made for each of them.
Data cannot tell `<` from `<=`; they mean the same.

Claims are read and checked with the study, before anything is trained. `metrics.claim_testing` has the statistics.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gentax.core import UsageError, unknown
from gentax.metrics import tax as measures
from gentax.metrics.claim_testing import Claim, ClaimResult, assess
from gentax.metrics.tax import BASE, RANDOM, SuccessMeasure

if TYPE_CHECKING:
    from gentax.studies.study import Study

# The unit in which each measure is compared with a number.
UNITS = {"tax": "%", "tax_removed": "%", "success": "%", "gain": "points", "drop": "points", "tax_rate": ""}
WHERE = ("untouched", "touched", "all")
POLICIES = {"base": BASE, "random": RANDOM}  # without an arm, for `success`
MOST_CLAIMS, MOST_CHARACTERS = 200, 400

TOKEN = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|(<=|>=|[<>≤≥(),])|([^\s"'<>≤≥(),]+))""")
NUMBER = re.compile(r"([+-]?\d{1,15}(?:\.\d{0,15})?)(%?)")


@dataclass(frozen=True)
class Side:
    """One side of a claim, as it is written: a measure of names, or a number."""

    measure: str = ""
    names: tuple[str, ...] = ()
    number: float = math.nan
    unit: str = ""
    on: tuple[str, ...] = ()


def read_claims(study: Study) -> tuple[Claim, ...]:
    """Return the claims of a study, one for each source where a claim names none of several.

    Raises:
        UsageError: a claim that cannot be read, or that names an arm, a domain or a measure which is not there.
    """
    if len(study.claims) > MOST_CLAIMS:
        raise UsageError(f"study {study.name}: at most {MOST_CLAIMS} claims are tested together")
    read: list[Claim] = []
    for stated in study.claims:
        text = " ".join(stated.split())
        where = f"claim `{text[:80]}` of study {study.name}"
        if len(stated) > MOST_CHARACTERS:
            raise UsageError(f"{where} has more than {MOST_CHARACTERS} characters")
        if any(text == claim.text for claim in read):
            raise UsageError(f"{where} is stated twice")
        read += _ClaimReader(study, where).claims(text)
    return tuple(read)


def assess_claims(
    study: Study,
    init: Mapping[str, np.ndarray],
    random: Mapping[str, np.ndarray],
    after: Mapping[tuple[str, str], Mapping[str, np.ndarray]],
    clusters: Mapping[str, list[str]],
) -> tuple[ClaimResult, ...]:
    """Test the claims of a finished study.

    Args:
        study: whose claims they are.
        init: domain -> success (K,) of the base; NaN marks an error, here and below.
        random: the same of random play.
        after: (arm, source) -> domain -> success (S, K).
        clusters: domain -> the content of each task.
    """
    policies = {BASE: init, RANDOM: random} | {_role(*cell): scores for cell, scores in after.items()}
    return tuple(assess(read_claims(study), policies, clusters))


def parse(text: str) -> tuple[Side, str, Side]:
    """Return the two sides of a claim and `<` or `>`. Raises UsageError for what is not in the grammar."""
    tokens: list[tuple[str, bool]] = []  # and whether it is a sign
    at, text = 0, text.rstrip()
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise UsageError(f"`{text[at:][:20]}` is a quote that does not end")
        double, single, sign, word = match.groups()
        tokens.append((next(x for x in (double, single, sign, word) if x is not None), sign is not None))
        at = match.end()
    signs = [n for n, (token, is_sign) in enumerate(tokens) if is_sign and token in "<=>=≤≥"]
    if len(signs) != 1:
        raise UsageError(f"a claim has one of < <= > >= in it, and this has {len(signs) or 'none'}")
    (middle,) = signs
    sides = [_side(tokens[:middle]), _side(tokens[middle + 1 :])]
    return sides[0], "<" if tokens[middle][0] in "<=≤" else ">", sides[1]


def _side(tokens: list[tuple[str, bool]]) -> Side:
    """Return one side of a claim from its tokens, each with whether it is a sign."""
    words = [token for token, _ in tokens]
    if not words:
        raise UsageError("one side is empty")
    if ("(", True) in tokens:
        opened = tokens.index(("(", True))
        closed = tokens.index((")", True)) if (")", True) in tokens else 0
        if opened != 1 or closed < opened:
            raise UsageError(f"`{' '.join(words)[:60]}` is no measure such as tax(plain)")
        if words[0] not in UNITS:
            raise unknown("measure", words[0], UNITS)
        names = _listed(tokens[2:closed]) if closed > 2 else ()
        return Side(words[0], names, on=_where(tokens[closed + 1 :]))
    number = NUMBER.fullmatch(words[0].replace("\N{MINUS SIGN}", "-"))
    if number is None:
        raise UsageError(f"`{' '.join(words)[:60]}` is neither a measure such as tax(plain) nor a number such as 5 %")
    unit, rest = number[2], tokens[1:]
    if rest and not unit and rest[0][0] in ("%", "percent", "points", "point"):
        unit, rest = "%" if rest[0][0][:2] in ("%", "pe") else "points", rest[1:]
    return Side(number=float(number[1]), unit=unit, on=_where(rest))


def _where(tokens: list[tuple[str, bool]]) -> tuple[str, ...]:
    if not tokens:
        return ()
    if tokens[0][0] != "on":
        raise UsageError(f"`{tokens[0][0][:40]}` cannot follow there; `on untouched` or the sign of a comparison can")
    return _listed(tokens[1:])


def _listed(tokens: list[tuple[str, bool]]) -> tuple[str, ...]:
    """Return names between commas."""
    names, commas = tokens[::2], tokens[1::2]
    if len(tokens) % 2 == 0 or any(sign for _, sign in names) or any(comma != (",", True) for comma in commas):
        raise UsageError(
            f"`{' '.join(token for token, _ in tokens)[:60]}` is no list of names such as `plain, sokoban`"
        )
    return tuple(name for name, _ in names)


class _ClaimReader:
    """Reads one claim of a study: finds what its names stand for, and what both sides are over."""

    def __init__(self, study: Study, where: str) -> None:
        self.study, self.where = study, where

    def claims(self, text: str) -> list[Claim]:
        try:
            left, sign, right = parse(text)
            if not left.measure:
                left, sign, right = right, ">" if sign == "<" else "<", left
            if not left.measure:
                raise UsageError("two numbers are compared")
            if not right.measure and right.on:
                if left.on:
                    raise UsageError("`on` stands there twice")
                left = replace(left, on=right.on)
            sides = [self._named(side) for side in (left, right) if side.measure]
            named = [source for _, source, _ in sides if source]
            made: list[Claim] = []
            for default in named[:1] or self.study.sources:
                claim = self._claim(sides, default, skip=not named)
                if claim is not None:
                    limit = 0.0 if right.measure else self._number(right, left.measure)
                    about = default if not named and len(self.study.sources) > 1 else ""
                    claim = replace(claim, text=text, limit=limit, above=sign == ">", source=about)
                    made.append(claim)
        except UsageError as error:
            raise UsageError(f"{self.where}: {error}") from None
        return made

    def _named(self, side: Side) -> tuple[Side, str, str]:
        """Return a side with its targets in `on`, its source ("" where it names none), and its arm."""
        study, arm, source = self.study, "", ""
        targets: list[str] = []
        for name in side.names:
            if not arm and (name in study.arms or (side.measure == "success" and name in POLICIES)):
                arm = name
            elif name in study.sources and not source:
                source = name
            elif name in study.domains and side.measure != "gain":
                targets.append(name)
            elif name in study.domains:
                raise unknown("source", name, study.sources)
            elif name in study.arms:
                raise UsageError(f"{side.measure} takes one arm, not {arm} and {name}")
            else:
                known = [*study.arms, *study.domains, *(POLICIES if side.measure == "success" else ())]
                raise unknown("arm or domain", name, known)
        if not arm:
            raise UsageError(f"{side.measure} takes an arm: {', '.join(study.arms)}")
        if targets and side.on:
            raise UsageError(f"{side.measure} names its targets twice, with `on` and without it")
        return replace(side, on=side.on or tuple(targets)), source, arm

    def _claim(self, sides: list[tuple[Side, str, str]], default: str, skip: bool) -> Claim | None:
        """Return the claim for one source; None where it is about no target of that source and `skip` is set."""
        cells = [(arm, source or default) for _, source, arm in sides]
        on = [side.on or next((other.on for other, _, _ in sides if other.on), ()) for side, _, _ in sides]
        units = {UNITS[side.measure] for side, _, _ in sides}
        if len(units) > 1:
            raise UsageError(f"{' and '.join(side.measure for side, _, _ in sides)} have different units")
        if all(side.measure == "gain" for side, _, _ in sides) and any(on):
            raise UsageError("gain is what training changed on its source, and takes no `on`")
        built = []
        for (side, _, _), cell, where in zip(sides, cells, on, strict=True):
            targets = () if side.measure == "gain" else self._targets(side.measure, where, cells, skip)
            if targets is None:
                return None
            built.append(self._measure(side.measure, cell, targets))
        if len(built) == 2 and built[0] == built[1]:
            raise UsageError("both sides are the same")
        return Claim("", built[0], built[1] if len(built) > 1 else None)

    def _targets(
        self, measure: str, on: tuple[str, ...], cells: list[tuple[str, str]], skip: bool
    ) -> tuple[str, ...] | None:
        """Return what a measure is over; None where it is the source of several that a claim is made for."""
        study, sources = self.study, {source for _, source in cells}
        if on and not set(on) & set(WHERE):
            for name in on:
                if name not in study.domains:
                    raise unknown("domain", name, [*study.domains, *WHERE])
            if measure != "success" and set(on) & sources:
                if skip and len(study.sources) > 1:
                    return None
                raise UsageError(f"{(set(on) & sources).pop()} is the source, and no target of {measure}; see `gain`")
            return tuple(dict.fromkeys(on))
        if len(on) > 1:
            raise UsageError(f"`on` takes one of {', '.join(WHERE)}, or domains")
        targets = [name for name in study.domains if name not in sources]
        if not targets:
            raise UsageError(f"no domain is left that is none of the sources {', '.join(sorted(sources))}")
        which, touched = on[0] if on else "untouched", self._touched(measure, cells)
        chosen = [name for name in targets if which == "all" or (name in touched) == (which == "touched")]
        if not chosen:
            other = "touched" if which == "untouched" else "untouched"
            raise UsageError(f"every target is {other} there: write `on {other}` or `on all`")
        return tuple(chosen)

    def _touched(self, measure: str, cells: Iterable[tuple[str, str]]) -> frozenset[str]:
        """Return the domains that entered the training of any of these arms, and of a baseline that counts."""
        study = self.study
        trained = {(arm, source) for arm, source in cells if arm in study.arms}
        if measure == "tax_removed":
            trained |= {(of, source) for arm, source in trained if (of := study.baseline(arm)) is not None}
        return frozenset().union(*(study.touched(*cell) for cell in trained))

    def _measure(self, name: str, cell: tuple[str, str], targets: tuple[str, ...]) -> SuccessMeasure:
        arm, source = cell
        role = _role(arm, source) if arm in self.study.arms else POLICIES[arm]
        match name:
            case "success":
                return measures.success(role, targets)
            case "gain":
                return measures.gain(role, source)
            case "drop":
                return measures.drop(role, targets)
            case "tax":
                return measures.tax(role, targets)
            case "tax_rate":
                return measures.tax_rate(role, targets, source)
        baseline = self.study.baseline(arm)
        if baseline is None:
            raise UsageError(f"arm {arm} has no tax to remove: it remedies no arm, and there is none called plain")
        return measures.tax_removed(role, targets, _role(baseline, source))

    def _number(self, side: Side, measure: str) -> float:
        """Return the number on the scale of success."""
        unit = UNITS[measure]
        if side.unit != unit and (side.unit or unit == "%"):
            number = f"{side.number:g}"
            right = f"{number} {unit}".strip()
            written = f"{number} {side.unit}".strip()
            raise UsageError(f"{measure} is compared with a number such as `{right}`, not `{written}`")
        return side.number / 100 if unit else side.number


def _role(arm: str, source: str) -> str:
    return f"{arm} on {source}"

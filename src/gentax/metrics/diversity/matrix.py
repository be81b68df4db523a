"""Every pair of some domains, by every measure of diversity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gentax.core import UsageError, unknown
from gentax.core.text_table import TextTable, as_printed
from gentax.metrics.axes import Probe
from gentax.metrics.diversity.lexical import counts, tfidf, unseen, unshared
from gentax.metrics.diversity.mixture import rao, vendi
from gentax.metrics.diversity.structural import structural
from gentax.metrics.statistics import Estimate

MEASURES = {  # name -> what it says of two domains, in a line; 0 is alike
    "unshared": "words and word pairs that only one shows",
    "unseen": "the column's words and word pairs unseen in the row",
    "tfidf": "1 − cosine of mean TF-IDF vectors",
    "structural": "distance on the axes (1: ten times the text)",
}
Pairs = Mapping[str, Mapping[str, Estimate]]  # source -> target -> estimate


@dataclass(frozen=True)
class Diversity:
    """How different domains are. Of `unseen` the first name is the source; the other measures are symmetric."""

    names: tuple[str, ...]
    pairs: Mapping[str, Pairs]  # measure -> pairs of different domains
    policy: Mapping[str, Estimate] = field(default_factory=dict)  # target -> divergence of a tuned policy there

    def matrix(self, measure: str) -> np.ndarray:
        """Return the values of a measure, (D, D), source by target, 0 on the diagonal. Raises UsageError."""
        if measure not in self.pairs:
            raise unknown("measure of diversity", measure, self.pairs)
        pairs = self.pairs[measure]
        return np.array([[0.0 if s == t else pairs[s][t].value for t in self.names] for s in self.names])

    def tables(self) -> list[TextTable]:
        """Return a table for each measure, half the width of its interval after each number."""
        names = self.names
        return [
            TextTable(
                f"{measure}: {MEASURES.get(measure, '')}",
                ["", *names],
                [[s, *("" if s == t else half_width(pairs[s][t]) for t in names)] for s in names],
            )
            for measure, pairs in self.pairs.items()
        ]

    _repr_pretty_ = as_printed

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.tables()))

    def mixture(self, weights: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Return how varied a mixture is: Rao's entropy by each measure, and the Vendi score from what they share.

        Args:
            weights: name -> share, in any unit; those not named are not in it. All alike when None.

        Raises:
            UsageError: an unknown name, a negative weight, no weight above 0.
        """
        weights = dict.fromkeys(self.names, 1.0) if weights is None else dict(weights)
        for name in weights:
            if name not in self.names:
                raise unknown("domain of the mixture", name, self.names)
        weights_D = np.array([weights.get(name, 0.0) for name in self.names])
        found: dict[str, Any] = {"weights": weights, "rao": {m: rao(self.matrix(m), weights_D) for m in self.pairs}}
        if "unshared" in self.pairs:
            found["vendi"] = vendi(1 - self.matrix("unshared"), weights_D)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the matrices as JSON values, which `from_json` reads."""
        return {
            "names": list(self.names),
            "pairs": {m: {s: _plain(row) for s, row in pairs.items()} for m, pairs in self.pairs.items()},
            "policy": _plain(self.policy),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Diversity:
        """Read what `to_json` made. Raises UsageError for anything else."""
        try:
            pairs = {m: {s: _read(row) for s, row in rows.items()} for m, rows in values["pairs"].items()}
            return cls(tuple(values["names"]), pairs, _read(values["policy"]))
        except (TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"this is no matrix of diversity: {type(error).__name__}: {error}") from None


def diversity(probes: Iterable[Probe], policy: Mapping[str, Estimate] | None = None) -> Diversity:
    """Measure how different the domains of `probes` are, every two of them.

    Deterministic. Probes that were read back from JSON have no episodes: with such a one, words are not compared, and
    only `structural` is measured.

    Args:
        probes: at least 2, of different names.
        policy: divergence of a tuned policy from its start on the states of a target, by name of the target.

    Raises:
        UsageError: fewer than 2 domains, two of one name, different horizons, a domain without text.
    """
    probes = list(probes)
    names = [probe.name for probe in probes]
    if len(set(names)) != len(names) or len(names) < 2:
        raise UsageError(f"diversity is of 2 or more different domains, not of {', '.join(names) or 'none'}")
    axes = {probe.name: probe.axes for probe in probes}
    pairs: dict[str, Pairs] = {}
    if all(probe.episodes for probe in probes):
        words = counts({probe.name: probe.episodes for probe in probes})
        pairs["unshared"] = _symmetric(names, lambda a, b: unshared(words[a], words[b]))
        pairs["unseen"] = {s: {t: unseen(words[s], words[t]) for t in names if t != s} for s in names}
        pairs["tfidf"] = _symmetric(names, lambda a, b: tfidf(words[a], words[b]))
    pairs["structural"] = _symmetric(names, lambda a, b: structural(axes[a], axes[b]))
    return Diversity(tuple(names), pairs, dict(policy or {}))


def _symmetric(names: Sequence[str], measure: Callable[[str, str], Estimate]) -> Pairs:
    once = {(a, b): measure(a, b) for i, a in enumerate(names) for b in names[i + 1 :]}
    return {a: {b: once[a, b] if (a, b) in once else once[b, a] for b in names if b != a} for a in names}


def half_width(value: Estimate) -> str:
    """Write an estimate with half the width of its interval, such as `0.52 ±0.03`."""
    return f"{value.value:.2f} ±{(value.high - value.low) / 2:.2f}"


def _plain(row: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.to_json() for name, estimate in row.items()}


def _read(row: Mapping[str, Any]) -> dict[str, Estimate]:
    return {name: Estimate.from_json(estimate) for name, estimate in row.items()}

"""Tax forecasts: before training from the axes of a source, after it from how far (KL) the policy has moved.

A fit is least squares through the taxes of a few measured training runs, on as many features as the domains can support
(3 domains and 2 for each feature), in a fixed order, so that no feature is selected by how well it fits. Its error is
**leave-one-domain-out**: the root mean square of these errors, with Student's t for the degrees of freedom left, makes
the interval, or the textbook prediction interval where that is wider, and never less than the uncertainty of the taxes
themselves. If the mean of the other taxes predicts better than the features do, the forecast is that mean, and says so.
With too few domains there is no forecast.

Not implemented: weighting taxes by their uncertainty, pooling studies with different base models.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gentax.core import UsageError, unknown
from gentax.metrics.axes import Probe
from gentax.metrics.diversity import Diversity, diversity
from gentax.metrics.statistics import LEVEL, Estimate
from gentax.metrics.statistics.variance import quantile

FEATURES = {  # name -> what it is; in the order in which few domains can afford them
    "richness": "log2 of the characters of a state's prompt",
    "planning": "mean trajectory length over the horizon, failures at the horizon",
    "diversity": "share of the targets' words and word pairs that the source never shows, mean over targets",
    "kl": "forward KL from base to tuned on the source's states, nats per action",
}
AXES = ("richness", "planning", "diversity")  # known before training
MOVED = ("kl",)  # known after it


@dataclass(frozen=True)
class Seen:
    """RL on `source` under one arm: what was known of it, and what it cost. Means over training seeds."""

    source: str
    arm: str
    steps: int  # of training
    seeds: int
    features: Mapping[str, float]  # of FEATURES; those that are not known are missing
    tax: float  # fraction
    tax_low: float  # its 95 % interval
    tax_high: float
    delta_id: float  # points

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Seen:
        """Read what `to_json` made. Raises UsageError for anything else, numbers that are not finite included."""
        try:
            row = cls(**values)
            for name in ("tax", "tax_low", "tax_high", "delta_id"):
                _number(name, getattr(row, name), 1e6)
            for name, value in row.features.items():
                _number(name, value, 1e6)
            for name in ("steps", "seeds"):
                if not isinstance(getattr(row, name), int) or not 0 < getattr(row, name) < 1e9:
                    raise ValueError(f"{name} must be a whole number above 0")
            if not isinstance(row.source, str) or not isinstance(row.arm, str):
                raise ValueError("source and arm must be text")
        except (TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"this is no row of a forecast: {error}") from None
        return row


def _number(name: str, value: object, limit: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= limit:
        raise ValueError(f"{name} must be a finite number")


def features_of(probe: Probe, unseen: float | None = None) -> dict[str, float]:
    """Return what a probe says of a candidate source.

    Args:
        probe: of the domain, as `gentax probe` makes it.
        unseen: mean over targets of the `unseen` measure of diversity, source to target.

    Raises:
        UsageError: a probe without prompts.
    """
    axes = probe.axes
    if axes.prompt_characters is None:
        raise UsageError(f"the probe of {probe.name} has no prompts: richness is that of the whole prompt")
    found = {"richness": math.log2(axes.prompt_characters.value), "planning": axes.planning.value / axes.horizon}
    return found if unseen is None else found | {"diversity": unseen}


FORMAT = 1
FEWEST = 4  # domains without which nothing is forecast
SHIPPED = Path(__file__).parent / "fits"
COVERS = "source domains"


@dataclass(frozen=True)
class Forecast:
    """An expected tax, and what it rests on."""

    tax: Estimate | None  # fraction; None when the fit has too few domains
    why: str  # in a clause, for the end of a sentence
    outside: tuple[str, ...] = ()  # features that lie outside the range of the fit
    informative: bool = True  # whether the features forecast better than the mean of the fit's taxes does

    def to_json(self) -> dict[str, Any]:
        return {
            "tax": self.tax and self.tax.to_json(),
            "why": self.why,
            "outside": list(self.outside),
            "informative": self.informative,
        }


@dataclass(frozen=True)
class Line:
    """Least squares of the tax on some features: its coefficients and what it misses by."""

    features: tuple[str, ...]
    constant: bool  # whether it has one; without, no feature means no tax
    beta: np.ndarray
    error: float  # root mean square of leaving a domain out, fraction
    spread: float  # root mean square of the residuals, degrees of freedom taken off
    known: float  # root mean square of the standard errors of the taxes
    df: int
    inverse: np.ndarray  # (X'X)^-1

    def at(self, features: Mapping[str, float], level: float) -> tuple[float, float]:
        """Return the forecast and its margin."""
        x = _row(features, self.features, self.constant)
        margin = max(self.error, self.known, self.spread * float(np.sqrt(1 + x @ self.inverse @ x)))
        return float(x @ self.beta), float(quantile(self.df, level)) * margin


@dataclass(frozen=True)
class Fit:
    """Taxes that were measured, stored with what is needed to forecast others from them."""

    name: str
    about: str  # where the data come from
    base: str  # the policy all runs started from
    targets: tuple[str, ...]  # every domain that was evaluated
    rows: tuple[Seen, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """The sources it has seen."""
        return tuple(sorted({row.source for row in self.rows}))

    @property
    def steps(self) -> int:
        """The training steps of the longest run it has seen."""
        return max(row.steps for row in self.rows)

    def affordable(self, wanted: Sequence[str] = AXES) -> tuple[str, ...]:
        """Return the first of `wanted` that all rows have, as many as the number of domains can pay for."""
        known = [name for name in wanted if all(name in row.features for row in self.rows)]
        return tuple(known[: max(0, (len(self.domains) - 3) // 2)])

    def line(self, features: tuple[str, ...], constant: bool = True) -> Line:
        """Fit a line and leave each domain out in turn.

        Raises:
            UsageError: fewer domains than the line has coefficients, and one.
        """
        coefficients = len(features) + constant
        if len(self.domains) <= coefficients:
            raise UsageError(f"{len(self.domains)} domains are too few for a line of {coefficients} coefficients")
        x = np.array([_row(row.features, features, constant) for row in self.rows])
        y = np.array([row.tax for row in self.rows])
        own = np.array([row.source for row in self.rows])
        beta = np.linalg.lstsq(x, y, rcond=None)[0]
        missed = np.empty(len(y))
        for source in self.domains:
            kept = own != source
            missed[~kept] = y[~kept] - x[~kept] @ np.linalg.lstsq(x[kept], y[kept], rcond=None)[0]
        df = len(self.domains) - coefficients
        per_domain = len(y) / len(self.domains)  # arms of one domain are no independent evidence
        spread = float(np.sqrt(((y - x @ beta) ** 2).sum() / per_domain / df))
        inverse = np.linalg.pinv(x.T @ x) * per_domain
        half = np.array([(row.tax_high - row.tax_low) / 2 for row in self.rows]) / quantile(np.inf, LEVEL)
        error, known = (float(np.sqrt((of**2).mean())) for of in (missed, half))
        return Line(features, constant, beta, error, spread, known, df, inverse)

    @cached_property
    def best(self) -> Line:
        """The line on what is known before training, or the mean where that forecasts better."""
        line, mean = self.line(self.affordable()), self.line(())
        return line if line.error < mean.error else mean

    def apart(self, level: float = LEVEL) -> float:
        """Return how far two forecasts must differ to be told apart."""
        line = self.best
        return float(np.sqrt(2) * quantile(line.df, level) * max(line.error, line.known))

    def forecast(self, features: Mapping[str, float], level: float = LEVEL) -> Forecast:
        """Forecast the tax of a source from what is known of it before training.

        Raises:
            UsageError: a feature that the line needs and `features` lacks.
        """
        few = len(self.domains)
        if few < FEWEST:
            return Forecast(
                None, f"fit {self.name!r} has {few} source domains, and a forecast takes {FEWEST}", (), False
            )
        line, tried = self.best, self.affordable()
        value, margin = line.at(features, level)
        how = f"on {' and '.join(line.features)}" if line.features else "by the mean"
        why = f"leave-one-domain-out error over {few} domains: {100 * line.error:.1f} points of tax {how}"
        if line.features:
            why += f", {100 * self.line(()).error:.1f} by the mean"
        elif tried:
            why += f", {100 * self.line(tried).error:.1f} on {' and '.join(tried)}"
        outside = self._outside(line.features, features)
        return Forecast(self._estimate(value, margin, level), why, outside, bool(line.features))

    def forecast_moved(self, features: Mapping[str, float], wanted: Sequence[str], level: float = LEVEL) -> Forecast:
        """Forecast the tax from how far a policy has moved: a line through the origin, since none is none.

        Raises:
            UsageError: a feature that `features` lacks.
        """
        if len(self.domains) < FEWEST or any(name not in row.features for row in self.rows for name in wanted):
            known = len({row.source for row in self.rows if all(name in row.features for name in wanted)})
            why = f"fit {self.name!r} has {known} source domains with {wanted[0]}, and a forecast takes {FEWEST}"
            return Forecast(None, why, (), False)
        line = self.line(tuple(wanted), constant=False)
        mean = self.line(())
        value, margin = line.at(features, level)
        why = (
            f"leave-one-domain-out error over {len(self.domains)} domains: {100 * line.error:.1f} points of tax on "
            f"{' and '.join(wanted)}, {100 * mean.error:.1f} by the mean"
        )
        informative = line.error < mean.error
        return Forecast(self._estimate(value, margin, level), why, self._outside(wanted, features), informative)

    def _estimate(self, value: float, margin: float, level: float) -> Estimate:
        seeds = min(row.seeds for row in self.rows)
        return Estimate(value, value - margin, value + margin, COVERS, "fraction", len(self.domains), seeds, level)

    def _outside(self, used: Sequence[str], features: Mapping[str, float]) -> tuple[str, ...]:
        def beyond(name: str) -> bool:
            seen = [row.features[name] for row in self.rows]
            return not min(seen) <= features[name] <= max(seen)

        return tuple(name for name in used if beyond(name))

    def to_json(self) -> dict[str, Any]:
        """Return the fit with the data it came from; `read_fit` reads it."""
        return {
            "format": FORMAT,
            "name": self.name,
            "about": self.about,
            "base": self.base,
            "targets": list(self.targets),
            "features": FEATURES,
            "rows": [row.to_json() for row in self.rows],
        }


def read_fit(path: str | Path) -> Fit:
    """Read a fit from a file, or one that ships with gentax by its name.

    Raises:
        UsageError: no such file, or one that holds no fit.
    """
    shipped = {file.stem: file for file in SHIPPED.glob("*.json")}
    where = shipped.get(str(path), Path(path))
    if not where.is_file():
        raise unknown("fit", path, shipped)
    try:
        values = json.loads(where.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {str(values['format'])[:20]}, this version reads {FORMAT}")
        rows = tuple(Seen.from_json(row) for row in values["rows"])
        fit = Fit(values["name"], values["about"], values["base"], tuple(values["targets"]), rows)
        if not all(isinstance(text, str) for text in (fit.name, fit.about, fit.base, *fit.targets)):
            raise ValueError("its name, its base or a target is no text")
    except (ValueError, KeyError, TypeError, RecursionError, UsageError) as error:
        raise UsageError(f"{where} holds no fit: {error}") from None
    if not rows:
        raise UsageError(f"{where} holds no fit: it has no rows")
    return fit


def _row(features: Mapping[str, float], wanted: Sequence[str], constant: bool) -> np.ndarray:
    for name in wanted:
        if name not in features:
            raise unknown("feature", name, features)
    return np.array([*([1.0] if constant else []), *(features[name] for name in wanted)])


LARGEST = 3  # domains of a mixture


@dataclass(frozen=True)
class Advice:
    """One way to spend the budget."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    steps: int  # each source's share of the budget
    features: Mapping[str, float]
    forecast: Forecast
    rank: int | None  # 1 is the least tax; alike where the difference is within the margin; None without a forecast
    measured: Seen | None  # the run of the fit on this very source, where it holds one
    headroom: float  # percent of the sources' tasks that the base fails: what training may gain at home

    def to_json(self) -> dict[str, Any]:
        kept = {key: getattr(self, key) for key in ("sources", "targets", "steps", "rank", "headroom")}
        known = None if self.measured is None else self.measured.to_json()
        return kept | {"features": dict(self.features), "forecast": self.forecast.to_json(), "measured": known}


def advise(
    probes: Sequence[Probe], candidates: Sequence[str], targets: Sequence[str], fit: Fit, budget: int
) -> list[Advice]:
    """Return candidates and mixtures of up to three of them, least forecast tax first, then most headroom.

    Args:
        probes: of all domains concerned, candidates and targets, with their episodes.
        candidates: names of those one could train on.
        targets: names of those that the policy is for.
        fit: what forecasts rest on.
        budget: training steps to spend. A mixture of m takes m times the steps that the runs of the fit had.

    Raises:
        UsageError: no candidate, one or a target that was not probed, no target besides a candidate, a budget below 1
            step.
    """
    if budget < 1:
        raise UsageError(f"the budget is a number of training steps, at least 1, not {budget}")
    by_name = {probe.name: probe for probe in probes}
    for name in [*candidates, *targets]:
        if name not in by_name:
            raise UsageError(f"{name} was not probed")
    if not candidates or not any(set(targets) - {name} for name in candidates):
        raise UsageError("advice takes at least one candidate and one other domain as a target")
    matrix = diversity(probes)
    largest = min(LARGEST, max(1, budget // fit.steps), len(candidates))
    found = []
    for size in range(1, largest + 1):
        for sources in itertools.combinations(candidates, size):
            others = tuple(name for name in targets if name not in sources)
            if not others:
                continue
            features = _features(sources, others, by_name, matrix)
            seen = [row for row in fit.rows if (row.source,) == sources and row.arm == "plain"]
            found.append(
                Advice(
                    sources,
                    others,
                    budget // size,
                    features,
                    fit.forecast(features),
                    None,
                    seen[0] if seen else None,
                    float(np.mean([100 - by_name[s].axes.success.value for s in sources])),
                )
            )
    return _ranked(found, fit)


def _features(
    sources: tuple[str, ...], targets: tuple[str, ...], by_name: Mapping[str, Probe], matrix: Diversity
) -> dict[str, float]:
    """Return the means of the features of `sources`; a target's words are unseen when no source shows them."""
    unseen = matrix.pairs.get("unseen")
    each = []
    for source in sources:
        away = None if unseen is None else float(np.mean([unseen[source][t].value for t in targets]))
        each.append(features_of(by_name[source], away))
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]}


def _ranked(found: list[Advice], fit: Fit) -> list[Advice]:
    """Order by forecast, then by headroom. A rank ends where one is farther than the margin from its first one."""
    tax = {n: a.forecast.tax.value for n, a in enumerate(found) if a.forecast.tax is not None}
    known = sorted((value, -found[n].headroom, n) for n, value in tax.items())
    ranked: list[Advice] = []
    first, rank = 0.0, 0
    apart = fit.apart() if known else 0.0
    for place, (value, _, n) in enumerate(known, 1):
        if place == 1 or value - first > apart:
            first, rank = value, place
        ranked.append(replace(found[n], rank=rank))
    unknown = (a for a in found if a.forecast.tax is None)
    return ranked + sorted(unknown, key=lambda a: -a.headroom)

"""A fit: a line through the taxes of a few domains, and what it is worth on a domain it has not seen.

Least squares on as many features as the domains can pay for (3 domains and 2 for each feature), in a fixed order, so
that nothing is chosen by how well it fits. **Leave one domain out**: each domain is forecast from the others; the root
mean square of these errors, with Student's t for the degrees of freedom left, is the interval, or the textbook
prediction interval where that is wider, and never less than how well the taxes themselves are known. If the mean of the
other taxes forecasts better than the features do, the forecast is that mean, and says so.

Left out: weights for how well each tax is known, and pooling of studies with different base models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gentax.core import UsageError, unknown
from gentax.metrics.forecast.training_runs import AXES, FEATURES, Seen
from gentax.metrics.statistics import LEVEL, Estimate
from gentax.metrics.statistics.variance import quantile

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

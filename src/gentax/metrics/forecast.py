"""Tax forecasts: before training from the axes of a source, after it from how far (KL) the policy has moved.

A fit is least squares through the taxes of a few measured training runs, on as many features as the domains can support
(3 domains and 2 for each feature), in a fixed order, so that no feature is selected by how well it fits. Its error is
**leave-one-domain-out**: the root mean square of these errors, with Student's t for the degrees of freedom left, makes
the interval, or the textbook prediction interval where that is wider, and never less than the uncertainty of the taxes
themselves. If the mean of the other taxes predicts better than the features do, the forecast is that mean, and says so.
With too few domains there is no forecast.

`advise` ranks candidate sources and their mixtures. A mixture shares the training steps among its domains; each must
get as many as the runs of the fit had, so that nothing is extrapolated in steps. Its features are the means of its
parts' (an assumption: the data hold no mixture). Candidates whose forecasts differ by less than the margin of a
difference of two forecasts share a rank.

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
from gentax.core.settings import read_settings, settings
from gentax.metrics.axes import Probe
from gentax.metrics.diversity import Diversity, diversity
from gentax.metrics.statistics import LEVEL, Estimate
from gentax.metrics.statistics.variance import t_quantile

FORMAT = 1
FEWEST = 4  # domains that a forecast takes
LARGEST = 3  # domains of a mixture
SHIPPED = Path(__file__).parent / "fits"
COVERS = "source domains"
FEATURES = {  # name -> meaning; in the order in which few domains can afford them
    "richness": "log2 of the characters of a state's prompt",
    "planning": "mean trajectory length over the horizon, failures at the horizon",
    "diversity": "share of the targets' words and word pairs that the source never shows, mean over targets",
    "kl": "forward KL from base to tuned on the source's states, nats per action",
}
KL = "kl"  # the only feature that is known after training and not before
AXES = tuple(name for name in FEATURES if name != KL)


@settings
class TrainingRun:
    """RL on `source` under one arm, its features and its measured tax. Means over training seeds.

    Raises:
        UsageError: a number that is not finite, or no training steps or seeds.
    """

    source: str
    arm: str
    steps: int  # of training
    seeds: int
    features: dict[str, float]  # of FEATURES; unknown ones are missing
    tax: float  # fraction
    tax_low: float  # its 95 % interval
    tax_high: float
    delta_id: float  # points

    def __post_init__(self) -> None:
        numbers = {"tax": self.tax, "tax_low": self.tax_low, "tax_high": self.tax_high, "delta_id": self.delta_id}
        for name, value in (numbers | self.features).items():
            if not abs(value) <= 1e6:
                raise UsageError(f"{name} must be a finite number, not {value}")
        if not (0 < self.steps < 1e9 and 0 < self.seeds < 1e9):
            raise UsageError(f"steps and seeds must be at least 1, not {self.steps} and {self.seeds}")


def features_of(probe: Probe, unseen: float | None = None) -> dict[str, float]:
    """Return the features of a candidate source that are known before training.

    Args:
        probe: of the domain, as `gentax probe` makes it.
        unseen: mean over targets of the `unseen` measure of diversity, source to target.

    Raises:
        UsageError: a probe without prompts.
    """
    axes = probe.axes
    if axes.prompt_characters is None:
        raise UsageError(f"the probe of {probe.name} has no prompts: richness is that of the whole prompt")
    features = {"richness": math.log2(axes.prompt_characters.value), "planning": axes.planning.value / axes.horizon}
    return features if unseen is None else features | {"diversity": unseen}


@dataclass(frozen=True)
class Forecast:
    """An expected tax and its basis."""

    tax: Estimate | None  # fraction; None when the fit has too few domains
    why: str  # in a clause, for the end of a sentence
    outside: tuple[str, ...] = ()  # features outside the range of the fit
    informative: bool = True  # whether the features predict better than the mean of the fit's taxes does

    def to_json(self) -> dict[str, Any]:
        values = {"why": self.why, "outside": list(self.outside), "informative": self.informative}
        return {"tax": self.tax and self.tax.to_json(), **values}


@dataclass(frozen=True)
class Regression:
    """Least squares of the tax on some features: coefficients and errors."""

    features: tuple[str, ...]
    intercept: bool  # without one, no KL means no tax
    beta: np.ndarray
    error: float  # root mean square of the leave-one-domain-out errors, fraction
    spread: float  # root mean square of the residuals, corrected for degrees of freedom
    known: float  # root mean square of the standard errors of the taxes
    df: int
    inverse: np.ndarray  # (X'X)^-1

    def predict(self, features: Mapping[str, float], level: float = LEVEL) -> tuple[float, float]:
        """Return the forecast and its margin."""
        x = _design_row(features, self.features, self.intercept)
        margin = max(self.error, self.known, self.spread * float(np.sqrt(1 + x @ self.inverse @ x)))
        return float(x @ self.beta), float(t_quantile(self.df, level)) * margin


@settings
class Fit:
    """Measured taxes, stored with what is needed to forecast others from them."""

    name: str
    about: str  # where the data come from
    base: str  # the policy all runs started from
    targets: tuple[str, ...]  # every domain that was evaluated
    rows: tuple[TrainingRun, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """The source domains."""
        return tuple(sorted({row.source for row in self.rows}))

    @property
    def steps(self) -> int:
        """The training steps of the longest run."""
        return max(row.steps for row in self.rows)

    def affordable(self) -> tuple[str, ...]:
        """Return the first axes that all rows have, as many as the number of domains can support."""
        known = [name for name in AXES if all(name in row.features for row in self.rows)]
        return tuple(known[: max(0, (len(self.domains) - 3) // 2)])

    def regress(self, features: tuple[str, ...], intercept: bool = True) -> Regression:
        """Fit a line and leave each domain out in turn.

        Raises:
            UsageError: fewer domains than the line has coefficients, and one.
        """
        coefficients = len(features) + intercept
        if len(self.domains) <= coefficients:
            raise UsageError(f"{len(self.domains)} domains are too few for a line of {coefficients} coefficients")
        x = np.array([_design_row(row.features, features, intercept) for row in self.rows])
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
        half = np.array([(row.tax_high - row.tax_low) / 2 for row in self.rows]) / t_quantile(np.inf, LEVEL)
        error, known = (float(np.sqrt((of**2).mean())) for of in (missed, half))
        return Regression(features, intercept, beta, error, spread, known, df, inverse)

    @cached_property
    def best(self) -> Regression:
        """The regression on what is known before training, or the mean where that predicts better."""
        line, mean = self.regress(self.affordable()), self.regress(())
        return line if line.error < mean.error else mean

    def distinguishable(self) -> float:
        """Return how far two forecasts must differ to be told apart."""
        return float(np.sqrt(2) * t_quantile(self.best.df, LEVEL) * max(self.best.error, self.best.known))

    def forecast(self, features: Mapping[str, float]) -> Forecast:
        """Forecast the tax of a source from its features before training.

        Raises:
            UsageError: a feature that the regression needs and `features` lacks.
        """
        if len(self.domains) < FEWEST:
            return self._none(len(self.domains), "")
        line, mean, tried = self.best, self.regress(()), self.affordable()
        if line.features:
            compared = f"on {' and '.join(line.features)}, {100 * mean.error:.1f} by the mean"
        else:
            compared = "by the mean"
            compared += f", {100 * self.regress(tried).error:.1f} on {' and '.join(tried)}" if tried else ""
        return self._forecast(line, features, compared, bool(line.features))

    def forecast_from_kl(self, kl: float) -> Forecast:
        """Forecast the tax from the KL that training has moved the policy: a line through the origin."""
        known = {row.source for row in self.rows if KL in row.features}
        if len(self.domains) < FEWEST or any(KL not in row.features for row in self.rows):
            return self._none(len(known), f" with {KL}")
        line, mean = self.regress((KL,), intercept=False), self.regress(())
        compared = f"on {KL}, {100 * mean.error:.1f} by the mean"
        return self._forecast(line, {KL: kl}, compared, line.error < mean.error)

    def _none(self, domains: int, having: str) -> Forecast:
        why = f"fit {self.name!r} has {domains} source domains{having}, and a forecast takes {FEWEST}"
        return Forecast(None, why, informative=False)

    def _forecast(self, line: Regression, features: Mapping[str, float], compared: str, informative: bool) -> Forecast:
        value, margin = line.predict(features)
        count, seeds = len(self.domains), min(row.seeds for row in self.rows)
        tax = Estimate(value, value - margin, value + margin, COVERS, "fraction", count, seeds)
        why = f"leave-one-domain-out error over {count} domains: {100 * line.error:.1f} points of tax {compared}"
        ranges = {name: [row.features[name] for row in self.rows] for name in line.features}
        outside = (name for name, known in ranges.items() if not min(known) <= features[name] <= max(known))
        return Forecast(tax, why, tuple(outside), informative)

    def to_json(self) -> dict[str, Any]:
        """Return the fit with the data it came from; `read_fit` reads it."""
        values = asdict(self) | {"targets": list(self.targets), "rows": [asdict(row) for row in self.rows]}
        rows = values.pop("rows")
        return {"format": FORMAT, **values, "features": FEATURES, "rows": rows}


def read_fit(path: str | Path) -> Fit:
    """Read a fit from a file, or a shipped one by its name.

    Raises:
        UsageError: no such file, or one that holds no fit.
    """
    shipped = {file.stem: file for file in SHIPPED.glob("*.json")}
    where = shipped.get(str(path), Path(path))
    if not where.is_file():
        raise unknown("fit", path, shipped)
    try:
        values = json.loads(where.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise ValueError(f"this version reads format {FORMAT}")
        values.pop("features", None)
        fit = read_settings(Fit, values, "a fit")
        if not fit.rows:
            raise ValueError("it has no rows")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
        raise UsageError(f"{where} holds no fit: {error}") from None
    return fit


def _design_row(features: Mapping[str, float], wanted: Sequence[str], intercept: bool) -> np.ndarray:
    for name in wanted:
        if name not in features:
            raise unknown("feature", name, features)
    return np.array([*([1.0] if intercept else []), *(features[name] for name in wanted)])


@dataclass(frozen=True)
class Advice:
    """One way to spend the budget."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    steps: int  # each source's share of the budget
    features: Mapping[str, float]
    forecast: Forecast
    rank: int | None  # 1 is the least tax; tied where the difference is within the margin; None without a forecast
    measured: TrainingRun | None  # the fit's run on this very source, where there is one
    headroom: float  # percent of the sources' tasks that the base fails: what training may gain at home

    def to_json(self) -> dict[str, Any]:
        values = {key: getattr(self, key) for key in ("sources", "targets", "steps", "rank", "headroom")}
        measured = None if self.measured is None else asdict(self.measured)
        return values | {"features": dict(self.features), "forecast": self.forecast.to_json(), "measured": measured}


def advise(
    probes: Sequence[Probe], candidates: Sequence[str], targets: Sequence[str], fit: Fit, budget: int
) -> list[Advice]:
    """Return candidates and mixtures of up to three of them, least forecast tax first, then most headroom.

    Args:
        probes: of all domains concerned, candidates and targets, with their episodes.
        candidates: names of the domains one could train on.
        targets: names of the domains that the policy will be used in.
        fit: the basis of the forecasts.
        budget: training steps to spend. A mixture of m takes m times the steps that the runs of the fit had.

    Raises:
        UsageError: no candidate, a candidate or target that was not probed, no target besides a candidate, a budget
            below 1 step.
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
    options = []
    for sources in itertools.chain.from_iterable(itertools.combinations(candidates, m + 1) for m in range(largest)):
        others = tuple(name for name in targets if name not in sources)
        if not others:
            continue
        features = _mean_features([by_name[source] for source in sources], others, matrix)
        measured = [row for row in fit.rows if (row.source,) == sources and row.arm == "plain"]
        headroom = float(np.mean([100 - by_name[s].axes.success.value for s in sources]))
        forecast, share = fit.forecast(features), budget // len(sources)
        options.append(
            Advice(sources, others, share, features, forecast, None, measured[0] if measured else None, headroom)
        )
    return _ranked(options, fit)


def _mean_features(sources: Sequence[Probe], targets: tuple[str, ...], matrix: Diversity) -> dict[str, float]:
    """Return the means over sources of their features; `diversity` is the mean over targets of what is unseen."""
    unseen = matrix.pairs.get("unseen")
    each = [
        features_of(source, None if unseen is None else float(np.mean([unseen[source.name][t].value for t in targets])))
        for source in sources
    ]
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]}


def _ranked(options: list[Advice], fit: Fit) -> list[Advice]:
    """Order by forecast, then by headroom. A rank ends where one is farther than the margin from its first one."""
    known = [(a.forecast.tax.value, -a.headroom, n) for n, a in enumerate(options) if a.forecast.tax is not None]
    ranked: list[Advice] = []
    first, rank = 0.0, 0
    for place, (value, _, n) in enumerate(sorted(known), 1):
        if place == 1 or value - first > fit.distinguishable():
            first, rank = value, place
        ranked.append(replace(options[n], rank=rank))
    return ranked + sorted((a for a in options if a.forecast.tax is None), key=lambda a: -a.headroom)

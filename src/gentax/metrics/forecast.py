"""Tax forecasts: before training from the axes of a source, after it from how far (KL) the policy has moved.

A fit is least squares through the taxes of a few measured training runs, on as many features as the domains can support
(3 domains and 2 for each feature), in a fixed order, so that no feature is selected by how well it fits. The interval
is the widest of three: the **leave-one-domain-out** error with Student's t, the textbook prediction interval, and the
uncertainty of the taxes themselves. If the mean of the other taxes predicts better than the features do, the forecast
is that mean, and says so. With too few domains there is no forecast.

`advise` ranks candidate sources and their mixtures. Each part of a mixture must get as many training steps as the runs
of the fit had; its features are the means of its parts' (an assumption: the data hold no mixture).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from gentax.core import UsageError, unknown
from gentax.core.files import read_json
from gentax.core.results import Record, Tabular, json_value
from gentax.core.settings import read_settings, settings
from gentax.metrics.axes import Axes, Probe
from gentax.metrics.diversity import diversity
from gentax.metrics.statistics import LEVEL, Estimate
from gentax.metrics.statistics.scores import t_quantile

FORMAT = 1
MIN_DOMAINS = 4  # that a forecast takes
MAX_MIXTURE = 3  # domains
SHIPPED = Path(__file__).parent / "fits"
FEATURES = {  # name -> meaning; in the order in which few domains can afford them
    "richness": "log2 of the characters of a state's prompt",
    "planning": "mean trajectory length over the horizon, failures at the horizon",
    "diversity": "share of the targets' words and word pairs that the source never shows, mean over targets",
    "kl": "forward KL from base to tuned on the source's states, nats per action",
}
KL = "kl"  # the only feature that is known after training and not before

Number = Annotated[float, Field(ge=-1e6, le=1e6)]
Count = Annotated[int, Field(gt=0, lt=1e9)]


@settings
class TrainingRun:
    """RL on `source` under one arm, its features and its measured tax. Means over training seeds."""

    source: str
    arm: str
    steps: Count  # of training
    seeds: Count
    features: dict[str, Number]  # of FEATURES; unknown ones are missing
    tax: Number  # fraction
    tax_low: Number  # its 95 % interval
    tax_high: Number
    delta_id: Number  # points


def features_of(axes: Axes, unseen: float | None = None) -> dict[str, float]:
    """Return the features of a candidate source that are known before training.

    Args:
        axes: of the domain; without prompts there is no richness.
        unseen: mean over targets of the `unseen` measure of diversity, source to target.
    """
    known = {} if axes.prompt_characters is None else {"richness": math.log2(axes.prompt_characters.value)}
    known["planning"] = axes.planning.value / axes.horizon
    return known if unseen is None else known | {"diversity": unseen}


@dataclass(frozen=True)
class Forecast(Record):
    """An expected tax and its basis."""

    tax: Estimate | None  # fraction; None when the fit has too few domains
    why: str  # in a clause, for the end of a sentence
    outside: tuple[str, ...] = ()  # features outside the range of the fit
    informative: bool = True  # whether the features predict better than the mean of the fit's taxes does


class Regression(NamedTuple):
    """Least squares of the tax on some features: coefficients and errors."""

    features: tuple[str, ...]
    intercept: bool  # without one, no KL means no tax
    beta: np.ndarray
    error: float  # root mean square of the leave-one-domain-out errors, fraction
    spread: float  # root mean square of the residuals, corrected for degrees of freedom
    known: float  # root mean square of the standard errors of the taxes
    df: int
    inverse: np.ndarray  # (X'X)^-1

    @property
    def basis(self) -> str:
        return f"on {' and '.join(self.features)}" if self.features else "by the mean"

    def predict(self, features: Mapping[str, float]) -> tuple[float, float]:
        """Return the forecast and its margin. Raises UsageError for a feature that is missing."""
        x = _design_row(features, self.features, self.intercept)
        margin = max(self.error, self.known, self.spread * float(np.sqrt(1 + x @ self.inverse @ x)))
        return float(x @ self.beta), float(t_quantile(self.df, LEVEL)) * margin


@settings
class Fit:
    """Measured taxes, stored with what is needed to forecast others from them."""

    name: str
    about: str  # where the data come from
    base: str  # the policy all runs started from
    targets: tuple[str, ...]  # every domain that was evaluated
    rows: Annotated[tuple[TrainingRun, ...], Field(min_length=1)]

    @property
    def domains(self) -> tuple[str, ...]:
        """The source domains."""
        return tuple(sorted({row.source for row in self.rows}))

    @property
    def steps(self) -> int:
        """The training steps of the longest run."""
        return max(row.steps for row in self.rows)

    def without(self, source: str) -> Fit:
        """Return the fit without the runs on a source, to forecast that one."""
        return replace(self, rows=tuple(row for row in self.rows if row.source != source))

    def affordable(self) -> tuple[str, ...]:
        """Return the first axes that all rows have, as many as the number of domains can support."""
        known = [name for name in FEATURES if name != KL and all(name in row.features for row in self.rows)]
        return tuple(known[: max(0, (len(self.domains) - 3) // 2)])

    def regress(self, features: tuple[str, ...], intercept: bool = True) -> Regression:
        """Fit a line and leave each domain out in turn. Raises UsageError for fewer domains than coefficients and 1."""
        df = len(self.domains) - len(features) - intercept
        if df < 1:
            raise UsageError(f"{len(self.domains)} domains are too few for a line of {len(features)} features")
        x = np.array([_design_row(row.features, features, intercept) for row in self.rows])
        y = np.array([row.tax for row in self.rows])
        sources = np.array([row.source for row in self.rows])
        beta = np.linalg.lstsq(x, y, rcond=None)[0]
        missed = np.empty(len(y))
        for source in self.domains:
            out = sources == source
            missed[out] = y[out] - x[out] @ np.linalg.lstsq(x[~out], y[~out], rcond=None)[0]
        per_domain = len(y) / len(self.domains)  # arms of one domain are no independent evidence
        spread = float(np.sqrt(((y - x @ beta) ** 2).sum() / per_domain / df))
        half = np.array([(row.tax_high - row.tax_low) / 2 for row in self.rows]) / t_quantile(np.inf, LEVEL)
        error, known = (float(np.sqrt((of**2).mean())) for of in (missed, half))
        return Regression(features, intercept, beta, error, spread, known, df, np.linalg.pinv(x.T @ x) * per_domain)

    @cached_property
    def lines(self) -> list[Regression]:
        """The mean of the taxes and the line on what is known before training, the one that predicts better first."""
        return sorted(
            (self.regress(tried) for tried in dict.fromkeys([(), self.affordable()])), key=lambda line: line.error
        )

    def distinguishable(self) -> float:
        """Return how far two forecasts must differ to be told apart."""
        best = self.lines[0]
        return float(np.sqrt(2) * t_quantile(best.df, LEVEL) * max(best.error, best.known))

    def forecast(self, features: Mapping[str, float]) -> Forecast:
        """Forecast the tax of a source from its features before training. Raises UsageError where it lacks one."""
        if len(self.domains) < MIN_DOMAINS:
            return self._no_forecast(len(self.domains))
        return self._forecast(self.lines, features)

    def forecast_from_kl(self, kl: float) -> Forecast:
        """Forecast the tax from the KL that training has moved the policy: a line through the origin."""
        having = {row.source for row in self.rows if KL in row.features}
        if len(self.domains) < MIN_DOMAINS or not all(KL in row.features for row in self.rows):
            return self._no_forecast(len(having), f" with {KL}")
        return self._forecast([self.regress((KL,), intercept=False), self.regress(())], {KL: kl})

    def _no_forecast(self, domains: int, having: str = "") -> Forecast:
        why = f"fit {self.name!r} has {domains} source domains{having}, and a forecast takes {MIN_DOMAINS}"
        return Forecast(None, why, informative=False)

    def _forecast(self, lines: Sequence[Regression], features: Mapping[str, float]) -> Forecast:
        """Forecast by the first of some lines; the error of the other is evidence beside its own."""
        line, count, seeds = lines[0], len(self.domains), min(row.seeds for row in self.rows)
        value, margin = line.predict(features)
        tax = Estimate(value, value - margin, value + margin, "source domains", "fraction", count, seeds)
        errors = [f"{100 * of.error:.1f}{' points of tax' if of is line else ''} {of.basis}" for of in lines]
        why = f"leave-one-domain-out error over {count} domains: {', '.join(errors)}"
        ranges = {name: [row.features[name] for row in self.rows] for name in line.features}
        outside = tuple(name for name, known in ranges.items() if not min(known) <= features[name] <= max(known))
        return Forecast(tax, why, outside, informative=line.error < self.regress(()).error)

    def to_json(self) -> dict[str, Any]:
        """Return the fit with the data it came from; `read_fit` reads it."""
        return {"format": FORMAT, "features": FEATURES, **json_value(asdict(self))}


def read_fit(path: str | Path) -> Fit:
    """Read a fit from a file, or a shipped one by its name. Raises UsageError where there is none."""
    shipped = {file.stem: file for file in SHIPPED.glob("*.json")}
    where = shipped.get(str(path), Path(path))
    if not where.is_file():
        raise unknown("fit", path, shipped)
    values = read_json(where)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UsageError(f"{where} holds no fit of format {FORMAT}, which this version reads")
    return read_settings(Fit, {k: v for k, v in values.items() if k not in ("format", "features")}, f"fit {where}")


def _design_row(features: Mapping[str, float], wanted: Sequence[str], intercept: bool) -> np.ndarray:
    for name in wanted:
        if name not in features:
            raise unknown("feature", name, features)
    return np.array([*([1.0] if intercept else []), *(features[name] for name in wanted)])


@dataclass(frozen=True)
class TrainingOption(Tabular, Record):
    """One way to spend a budget of training steps, and the tax to expect of it."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    steps: int  # each source's share of the budget
    features: Mapping[str, float]
    forecast: Forecast
    rank: int | None  # 1 is the least tax; tied where the difference is within the margin; None without a forecast
    measured: TrainingRun | None  # the fit's run on this very source, where there is one
    headroom: float  # percent of the sources' tasks that the base fails: what training may gain at home

    def rows(self) -> list[dict[str, Any]]:
        """Return one row: the option, its features and its forecast."""
        option = {"sources": self.sources, "targets": self.targets, "steps": self.steps, "rank": self.rank}
        measured = None if self.measured is None else self.measured.tax
        outcome = {"forecast_tax": self.forecast.tax, "measured_tax": measured, "headroom": self.headroom}
        return [option | outcome | dict(self.features)]


def advise(
    probes: Sequence[Probe], candidates: Sequence[str], targets: Sequence[str], fit: Fit, budget: int
) -> list[TrainingOption]:
    """Return candidates and mixtures of up to three of them, least forecast tax first, then most headroom.

    A rank ends where an option is further from its first one than forecasts can be told apart.

    Args:
        probes: of all domains concerned, candidates and targets, with their episodes.
        candidates: names of the domains one could train on.
        targets: names of the domains that the policy will be used in.
        fit: the basis of the forecasts.
        budget: training steps to spend. A mixture of m takes m times the steps that the runs of the fit had.

    Raises:
        UsageError: a candidate or target that was not probed, no target besides a candidate, a budget below 1 step.
    """
    if budget < 1:
        raise UsageError(f"the budget is a number of training steps, at least 1, not {budget}")
    by_name = {probe.name: probe for probe in probes}
    for name in [*candidates, *targets]:
        if name not in by_name:
            raise UsageError(f"{name} was not probed")
    if not any(set(targets) - {name} for name in candidates):
        raise UsageError("advice takes at least one candidate and one other domain as a target")
    unseen = diversity(probes).pairs.get("unseen")
    largest = min(MAX_MIXTURE, max(1, budget // fit.steps), len(candidates))
    options = []
    for sources in itertools.chain.from_iterable(itertools.combinations(candidates, m + 1) for m in range(largest)):
        left = tuple(name for name in targets if name not in sources)
        if not left:
            continue
        new_words = {s: float(np.mean([unseen[s][t].value for t in left])) for s in sources} if unseen else {}
        of_sources = [features_of(by_name[s].axes, new_words.get(s)) for s in sources]
        features = {name: float(np.mean([of[name] for of in of_sources])) for name in of_sources[0]}
        measured = next((row for row in fit.rows if (row.source,) == sources and row.arm == "plain"), None)
        headroom = float(np.mean([100 - by_name[s].axes.success.value for s in sources]))
        steps, forecast = budget // len(sources), fit.forecast(features)
        options.append(TrainingOption(sources, left, steps, features, forecast, None, measured, headroom))
    options.sort(key=lambda option: (option.forecast.tax.value if option.forecast.tax else 0.0, -option.headroom))
    first, rank = -math.inf, 0
    for place, option in enumerate(options):
        if option.forecast.tax is None:  # so it is with every one: the fit has too few domains
            break
        if option.forecast.tax.value - first > fit.distinguishable():
            first, rank = option.forecast.tax.value, place + 1
        options[place] = replace(option, rank=rank)
    return options

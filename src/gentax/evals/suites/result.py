"""What came of playing a suite: types, the score card, and the file that holds both.

A result file has each episode's outcome and numbers on a line of its own, so that everything on the score card can be
computed again from it. What policies wrote is left out: `gentax rollout` keeps episodes whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gentax.core import Episode, Outcome, UsageError
from gentax.core.settings import plain, read_settings
from gentax.core.text_table import TextTable, as_printed
from gentax.evals.suites.lines import harmless, write_lines
from gentax.evals.suites.suite import load_suite
from gentax.metrics.left_out import ERROR_SHARE
from gentax.metrics.statistics import Estimate, Labels, Scores, above_chance, linear, success_rate

FORMAT = 1  # raised when a result file means something else than before
LIMIT = 1 << 24  # bytes of a result file that are read; one of v2 has some 200,000


@dataclass(frozen=True)
class Played:
    """One episode, in numbers."""

    task: str
    """The id of the task."""
    sample: int
    """Which of several episodes on the same task."""
    outcome: str
    """`success`, `failure` or `error`."""
    length: int
    """Steps taken."""
    invalid: int
    """Actions that could not be parsed or were refused, those of truncated replies among them."""
    ret: float
    """The return."""
    written: int | None = None
    """Tokens the policy wrote; null when that is not known."""
    error: str = ""
    """What broke, where the outcome is `error`."""
    truncated: int = 0
    """How many of the invalid were replies that were cut off at the suite's budget of tokens."""

    @classmethod
    def of(cls, episode: Episode) -> Played:
        """Put an episode into numbers."""
        invalid = [step for step in episode.steps if not step.valid]
        cut_off = sum(step.truncated for step in invalid)
        values = (episode.length, len(invalid), episode.ret, episode.written, episode.error, cut_off)
        return cls(episode.task.id, episode.sample, episode.outcome.value, *values)


@dataclass(frozen=True)
class DomainResult:
    """What came of one domain."""

    level: str
    horizon: int
    starts: dict[str, str]
    """The hash of each task's start, as seen before it was played."""
    episodes: tuple[Played, ...]

    def scores(self, order: Iterable[str] | None = None) -> np.ndarray:
        """Return (K,) mean success over samples of each task; NaN where one is an error.

        The tasks are in the given order, or in that of `starts`.

        What is read from a file is verified first (see `verify`): here every task must have its episodes.
        """
        found: dict[str, list[float]] = {id: [] for id in (self.starts if order is None else order)}
        for one in self.episodes:
            found[one.task].append(np.nan if one.outcome == Outcome.ERROR else float(one.outcome == Outcome.SUCCESS))
        return np.array([np.mean(values) for values in found.values()])


@dataclass(frozen=True)
class SuiteResult:
    """What came of playing a suite, or some of its domains."""

    suite: str
    digest: str
    """The hash of the suite that was played."""
    policy: str
    fingerprint: str | None
    """The hash of the policy's weights; null for policies that are no model folder."""
    made_with: dict[str, str]
    """Versions: of gentax, Python and packages, and the platform."""
    missing: tuple[str, ...]
    """Domains of the suite that were not played."""
    domains: dict[str, DomainResult] = field(default_factory=dict)
    runtime: dict[str, str] | None = None
    """The device and the number format of the policy's weights; null for policies that have none here."""

    def scores(self) -> dict[str, np.ndarray]:
        """Return by domain (K,) mean success over samples of each task, NaN where an episode ended in an error."""
        return {name: played.scores() for name, played in self.domains.items()}

    def card(self) -> ScoreCard:
        """Return the score card."""
        suite, scores = load_suite(self.suite), self.scores()
        broken = {name: np.isnan(scores_K) for name, scores_K in scores.items()}
        sound, clusters, chance = {}, {}, {}
        for name, scores_K in scores.items():
            if broken[name].mean() <= ERROR_SHARE:
                ids = np.array(list(self.domains[name].starts))[~broken[name]]
                sound[name], contents = scores_K[~broken[name]], suite.domains[name].contents
                random = dict(zip(contents, suite.chance(name), strict=True))
                clusters[name], chance[name] = [contents[id] for id in ids], np.array([random[id] for id in ids])
        whole = not self.missing and len(sound) == len(scores)
        return ScoreCard(
            success={n: success_rate(sound[n], clusters=clusters[n]) if n in sound else None for n in scores},
            above_chance={
                n: above_chance(sound[n], chance[n], clusters=clusters[n]) if n in sound else None for n in scores
            },
            random={n: 100 * float(suite.chance(n).mean()) for n in scores},
            left_out={name: int(broken_K.sum()) for name, broken_K in broken.items()},
            mean=mean_success(sound, clusters) if whole else None,
        )

    def table(self) -> TextTable:
        """Return the score card with mean lengths and shares of invalid actions, as a table."""
        card = self.card()
        cut = any(episode.truncated for played in self.domains.values() for episode in played.episodes)
        rows: list[list[object]] = []
        for name, played in self.domains.items():
            kept = [episode for episode in played.episodes if episode.outcome != Outcome.ERROR]
            steps = sum(episode.length for episode in kept)
            truncated = sum(episode.truncated for episode in kept)
            invalid = sum(episode.invalid for episode in kept) - truncated
            shares = [f"{count / max(1, steps):.0%}" for count in (invalid, truncated)[: 1 + cut]]
            length, success = steps / max(1, len(kept)), card.success[name] or "undefined"
            over = [f"{card.random[name]:.1f}", card.above_chance[name] or "undefined"]
            rows.append([name, played.level, success, *over, f"{length:.1f}", *shares, card.left_out[name]])
        if card.mean is not None:
            rows.append(["mean", "", card.mean, "", "", "", *[""] * (1 + cut), sum(card.left_out.values())])
        over = ["random %", "above chance %"]
        columns = ["domain", "level", "success %", *over, "length", "invalid", *["truncated"] * cut, "errors"]
        return TextTable(f"{self.policy} on suite {self.suite} ({self.digest[:8]})", columns, rows)

    _repr_pretty_ = as_printed

    def __str__(self) -> str:
        lines = [str(self.table())]
        if self.missing:
            lines.append(f"incomplete, so there is no mean: without {', '.join(self.missing)}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values, the score card first."""
        content = plain(self)
        domains = content.pop("domains")
        for played in domains.values():
            played["episodes"] = [_without_empty(row) for row in played["episodes"]]
        missing = list(content.pop("missing"))
        return {"format": FORMAT, **content, "missing": missing, "score": self.card().to_json(), "domains": domains}


@dataclass(frozen=True)
class ScoreCard:
    """Success in percent, of each domain and over all of the suite, with 95 % intervals that cover tasks."""

    success: Mapping[str, Estimate | None]
    """By domain; None where more tasks ended in an error than may be left out."""
    above_chance: Mapping[str, Estimate | None]
    """By domain, (success - random) / (100 - random) in percent, random play's success being the suite's."""
    random: Mapping[str, float]
    """By domain, random play's success on the suite's tasks, in percent."""
    left_out: Mapping[str, int]
    """By domain, the tasks left out because an episode ended in an error."""
    mean: Estimate | None
    """Over the suite's domains, each with the same weight; None when any of them is missing."""

    _repr_pretty_ = as_printed

    def __str__(self) -> str:
        mean = "undefined: a domain is missing, or has too many errors" if self.mean is None else self.mean
        rows = [[n, one or "undefined: too many errors", self.left_out[n]] for n, one in self.success.items()]
        return str(TextTable("Score card", ["domain", "success %", "errors"], [*rows, ["mean", mean, ""]]))

    def to_json(self) -> dict[str, Any]:
        """Return the score card as JSON values."""
        return {
            "mean": _shown(self.mean),
            "success": {name: _shown(one) for name, one in self.success.items()},
            "above_chance": {name: _shown(one) for name, one in self.above_chance.items()},
            "left_out": dict(self.left_out),
        }


def mean_success(scores: Mapping[str, np.ndarray], clusters: Mapping[str, Labels]) -> Estimate:
    """Estimate the mean over domains of success, in percent, from scores (K,) and the content of each task, by domain.

    Domains are fixed.
    """
    weights = {("init", name): 100.0 / len(scores) for name in scores}
    estimate = linear(Scores.of(init=scores, clusters=clusters), weights, "percent")
    return replace(estimate, low=max(estimate.low, 0.0), high=min(estimate.high, 100.0))  # no success is outside


def write_suite_result(path: str | Path, result: SuiteResult) -> None:
    """Write a result, whole or not at all."""
    write_lines(path, result.to_json())


def read_result(path: str | Path) -> SuiteResult:
    """Read a result file. That it holds together is for `verify` to say.

    Raises:
        UsageError: no such file, or one that is no result of a suite.
    """
    return parse_result(read_content(path), str(path))


def read_content(path: str | Path) -> Any:
    """Return the JSON values in a file, which may be anybody's. Raises UsageError when there are none."""
    path = Path(path)
    try:
        if not path.is_file():
            raise UsageError(f"{path} is no file")
        if path.stat().st_size > LIMIT:
            raise UsageError(f"{path} is larger than {LIMIT >> 20} MB: it is no result of a suite")
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_not_finite)
    except RecursionError:
        raise UsageError(f"{path} is nested too deeply to be a result of a suite") from None
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from None


def parse_result(content: Any, where: str) -> SuiteResult:
    """Make a result of JSON values. Raises UsageError when they are not of its form."""
    if not isinstance(content, dict) or "suite" not in content or "format" not in content:
        raise UsageError(f"{where} is no result of a suite; `gentax evaluate --suite v2 --json FILE` writes one")
    if type(content["format"]) is not int or content["format"] != FORMAT:
        raise UsageError(harmless(f"{where} has the format {content['format']!r}; this version reads format {FORMAT}"))
    values = {key: value for key, value in content.items() if key not in ("format", "score")}
    try:
        return read_settings(SuiteResult, values, where)
    except (UsageError, OverflowError) as error:
        raise UsageError(harmless(str(error))) from None


def _shown(estimate: Estimate | None) -> dict[str, float] | None:
    """Return what a score card keeps of an estimate, whatever else estimates come to hold."""
    return None if estimate is None else {key: getattr(estimate, key) for key in ("value", "low", "high", "n")}


def _without_empty(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("error", "truncated") or value}


def _not_finite(name: str) -> float:
    raise ValueError(f"it holds {name}, which JSON does not have")

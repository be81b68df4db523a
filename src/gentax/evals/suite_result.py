"""Results of a suite: the score card, the file, and checks of a file (`gentax verify`).

A result file has each episode's outcome and numbers on a line of its own, so that everything on the score card can be
computed again from it. Replies are left out: `gentax rollout` keeps whole episodes.

Checks show that a file is whole and consistent with itself and with the frozen suite. They cannot show that the
outcomes are what the named policy did. For that the suite is played again, which gives the same numbers on the same
machine with the same versions; elsewhere floating point may round differently, and with it a few episodes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import gentax
from gentax.core import Episode, Outcome, UsageError
from gentax.core.console import one_line
from gentax.core.files import read_json
from gentax.core.results import Tabular, TextTable, json_value, repr_as_str
from gentax.core.settings import read_settings, settings
from gentax.evals.suite import FROZEN, RETIRED, Suite, load_suite, versions
from gentax.metrics.episode_scores import MAX_ERROR_SHARE
from gentax.metrics.statistics import Estimate, Scores, above_chance, linear_combination, success_rate
from gentax.policies.chat_client import Usage

FORMAT = 1  # raised when a result file means something else than before


@settings
class PlayedEpisode:
    """One episode, in numbers."""

    task: str  # the id of the task
    sample: int  # which of several episodes on the same task
    outcome: str  # `success`, `failure` or `error`
    length: int  # steps taken
    invalid: int  # actions that could not be parsed or were refused, those of truncated replies among them
    ret: float  # the return
    written: int | None = None  # tokens the policy wrote; null when that is not known
    error: str = ""
    """What broke, where the outcome is `error`."""
    truncated: int = 0  # how many of the invalid were replies that were cut off at the suite's budget of tokens

    @classmethod
    def of(cls, episode: Episode) -> PlayedEpisode:
        """Put an episode into numbers."""
        invalid = [step for step in episode.steps if not step.valid]
        cut_off = sum(step.truncated for step in invalid)
        values = (episode.length, len(invalid), episode.ret, episode.written, episode.error, cut_off)
        return cls(episode.task.id, episode.sample, episode.outcome.value, *values)

    def impossible(self, horizon: int) -> Iterator[str]:
        """Yield what is impossible about an episode of a suite with sparse rewards."""
        if self.outcome not in list(Outcome):
            yield f"an outcome is success, failure or error, not {self.outcome!r}"
        broke, success = self.outcome == Outcome.ERROR, self.outcome == Outcome.SUCCESS
        if not (0 if broke else 1) <= self.length <= horizon:
            yield f"an episode has 1 to {horizon} steps, not {self.length}"
        if not 0 <= self.invalid <= self.length:
            yield f"{self.invalid} of {self.length} actions cannot be invalid"
        if not 0 <= self.truncated <= self.invalid:
            yield f"{self.truncated} of {self.invalid} invalid replies cannot be cut off"
        if (not broke and self.ret != success) or not math.isfinite(self.ret):
            yield f"the return of a {self.outcome} is {float(success):g}, not {self.ret}"
        if self.written is not None and self.written < 0:
            yield f"{self.written} tokens cannot be written"


@settings
class DomainResult:
    """What came of one domain."""

    level: str
    horizon: int
    starts: dict[str, str]  # the hash of each task's start, as seen before it was played
    episodes: tuple[PlayedEpisode, ...]

    def scores(self, order: Iterable[str] | None = None) -> np.ndarray:
        """Return (K,) mean success over samples of each task; NaN where one is an error.

        The tasks are in the given order, or in that of `starts`. What is read from a file is verified first (see
        `verify`): here every task must have its episodes.
        """
        samples: dict[str, list[float]] = {id: [] for id in (self.starts if order is None else order)}
        for e in self.episodes:
            samples[e.task].append(np.nan if e.outcome == Outcome.ERROR else float(e.outcome == Outcome.SUCCESS))
        return np.array([np.mean(values) for values in samples.values()])


@settings
class SuiteResult(Tabular):
    """What came of playing a suite, or some of its domains."""

    suite: str
    digest: str  # the hash of the suite that was played
    policy: str
    fingerprint: str | None  # the hash of the policy's weights; null for policies that are no model folder
    made_with: dict[str, str]  # versions: of gentax, Python and packages, and the platform
    missing: tuple[str, ...]  # domains of the suite that were not played
    domains: dict[str, DomainResult] = field(default_factory=dict)
    runtime: dict[str, str] | None = None
    """The device and the number format of the policy's weights; null for policies that have none here."""
    usage: Usage | None = None
    """Requests, tokens and cost of a policy behind a server."""

    def card(self) -> ScoreCard:
        """Return the score card."""
        suite, scores = load_suite(self.suite), dict[str, DomainScore]()
        usable, clusters = dict[str, np.ndarray](), dict[str, list[str]]()
        for name, played in self.domains.items():
            chance_K, scores_K = suite.chance(name), played.scores()
            random, broken_K = 100 * float(chance_K.mean()), np.isnan(scores_K)
            success = above = None
            if broken_K.mean() <= MAX_ERROR_SHARE:
                ids = np.array(list(played.starts))[~broken_K]
                chance = dict(zip(suite.domains[name].contents, chance_K, strict=True))
                usable[name], clusters[name] = scores_K[~broken_K], [suite.domains[name].contents[id] for id in ids]
                success = success_rate(usable[name], clusters=clusters[name])
                above = above_chance(usable[name], np.array([chance[id] for id in ids]), clusters=clusters[name])
            scores[name] = DomainScore(success, above, random, int(broken_K.sum()))
        if self.missing or len(usable) < len(scores):
            return ScoreCard(scores, None)
        weights = {("init", name): 100.0 / len(usable) for name in usable}  # domains are fixed, and weigh alike
        mean = linear_combination(Scores.of(init=usable, clusters=clusters), weights, "percent")
        return ScoreCard(scores, replace(mean, low=max(mean.low, 0.0), high=min(mean.high, 100.0)))

    def table(self) -> TextTable:
        """Return the score card with mean lengths and shares of invalid actions, as a table."""
        card = self.card()
        some_truncated = any(episode.truncated for played in self.domains.values() for episode in played.episodes)
        rows: list[list[object]] = []
        for (name, played), score in zip(self.domains.items(), card.domains.values(), strict=True):
            complete = [episode for episode in played.episodes if episode.outcome != Outcome.ERROR]
            steps, truncated = sum(e.length for e in complete), sum(e.truncated for e in complete)
            invalid = sum(e.invalid for e in complete)
            shares = [
                f"{count / max(1, steps):.0%}" for count in (invalid - truncated, truncated)[: 1 + some_truncated]
            ]
            rates = [score.success or "undefined", f"{score.random:.1f}", score.above_chance or "undefined"]
            rows.append([name, played.level, *rates, f"{steps / max(1, len(complete)):.1f}", *shares, score.left_out])
        if card.mean is not None:
            left_out = sum(score.left_out for score in card.domains.values())
            rows.append(["mean", "", card.mean, "", "", "", *[""] * (1 + some_truncated), left_out])
        columns = ["domain", "level", "success %", "random %", "above chance %", "length", "invalid"]
        columns += [*["truncated"] * some_truncated, "errors"]
        return TextTable(f"{self.policy} on suite {self.suite} ({self.digest[:8]})", columns, rows)

    _repr_pretty_ = repr_as_str

    def __str__(self) -> str:
        lines = [str(self.table())]
        if self.missing:
            lines.append(f"incomplete, so there is no mean: without {', '.join(self.missing)}")
        return "\n".join(lines)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each domain, as the score card has it, and one for the mean where there is one."""
        card, of = self.card(), {"suite": self.suite, "policy": self.policy}
        rows = [of | {"domain": n, "level": self.domains[n].level} | vars(score) for n, score in card.domains.items()]
        return rows if card.mean is None else [*rows, of | {"domain": "mean", "success": card.mean}]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values, the score card first."""
        content = {name: json_value(getattr(self, name)) for name in self.__dataclass_fields__}
        domains = content.pop("domains")
        for played in domains.values():
            played["episodes"] = [
                {key: value for key, value in row.items() if key not in ("error", "truncated") or value}
                for row in played["episodes"]
            ]
        missing = content.pop("missing")
        if self.usage is None:
            del content["usage"]
        return {"format": FORMAT, **content, "missing": missing, "score": self.card().to_json(), "domains": domains}


@dataclass(frozen=True)
class DomainScore:
    """What a score card says of a domain, in percent, with 95 % intervals that cover tasks."""

    success: Estimate | None  # None where more tasks ended in an error than may be left out
    above_chance: Estimate | None
    """(success - random) / (100 - random), random play's success being the suite's."""
    random: float  # random play's success on the suite's tasks
    left_out: int  # tasks left out because an episode ended in an error


@dataclass(frozen=True)
class ScoreCard:
    """The scores on each domain and over all of the suite."""

    domains: Mapping[str, DomainScore]
    mean: Estimate | None  # of success over the suite's domains, each with the same weight; None when any is missing

    def to_json(self) -> dict[str, Any]:
        """Return the score card as JSON values."""
        return {
            "mean": _estimate_json(self.mean),
            "success": {name: _estimate_json(score.success) for name, score in self.domains.items()},
            "above_chance": {name: _estimate_json(score.above_chance) for name, score in self.domains.items()},
            "left_out": {name: score.left_out for name, score in self.domains.items()},
        }


def _estimate_json(estimate: Estimate | None) -> dict[str, float] | None:
    """Return what a score card keeps of an estimate, whatever else estimates come to hold."""
    return None if estimate is None else {key: getattr(estimate, key) for key in ("value", "low", "high", "n")}


# --- the file ---


def read_result(path: str | Path) -> SuiteResult:
    """Read a result file. That it holds together is for `verify` to say.

    Raises:
        UsageError: no such file, or one that is no result of a suite.
    """
    return _parse_result(read_json(path), str(path))


def _parse_result(content: Any, where: str) -> SuiteResult:
    if not isinstance(content, dict) or "suite" not in content or "format" not in content:
        raise UsageError(f"{where} is no result of a suite; `gentax evaluate --suite v2 --json FILE` writes one")
    if type(content["format"]) is not int or content["format"] != FORMAT:
        raise UsageError(
            one_line(f"{where} has the format {content['format']!r}; this version reads format {FORMAT}", SHOWN)
        )
    values = {key: value for key, value in content.items() if key not in ("format", "score")}
    try:
        return read_settings(SuiteResult, values, where)
    except (UsageError, OverflowError) as error:
        raise UsageError(one_line(str(error), SHOWN)) from None


# --- checks ---

SHOWN = 300  # characters of a text from a file, which may hold anything
TOLERANCE = 1e-6  # percent; the score card is computed in closed form, and sums may round otherwise elsewhere


class ResultCheck(NamedTuple):
    """One thing that was checked of a result."""

    name: str
    passed: bool
    found: str  # one line, safe to print whatever the file holds


def verify(path: str | Path) -> list[ResultCheck]:
    """Check a result file, which may hold anything; the checks after one that makes them impossible are not made."""
    try:
        content = read_json(path)
        result = _parse_result(content, Path(path).name)
    except UsageError as error:
        return [ResultCheck("format", False, one_line(str(error), SHOWN))]
    checks = [ResultCheck("format", True, f"format {content['format']}"), *check_result(result)]
    if all(check.passed for check in checks):
        checks.append(_check("score card", _same_card, content.get("score"), result))
    return [*checks, _check("versions", _versions, result)]


def check_result(result: SuiteResult) -> list[ResultCheck]:
    """Check a result against the suite it names, without its score card."""
    checks = [_check("suite", _suite, result)]
    if checks[0].passed:
        suite = load_suite(result.suite)
        checks.append(_check("domains", _domains, result, suite))
        if checks[1].passed:
            tests = {"starts": _starts, "tasks": _tasks, "numbers": _numbers, "errors": _errors}
            checks += [_check(name, test, result, suite) for name, test in tests.items()]
    return checks


def _check(name: str, test: Callable[..., str], *inputs: Any) -> ResultCheck:
    """Run a test, which returns what is so, or raises UsageError with what is wrong."""
    try:
        return ResultCheck(name, True, one_line(test(*inputs), SHOWN))
    except UsageError as wrong:
        return ResultCheck(name, False, one_line(str(wrong), SHOWN))
    except RecursionError:
        return ResultCheck(name, False, "nested deeper than any result is")


def _suite(result: SuiteResult) -> str:
    if result.suite in RETIRED:
        raise UsageError(f"suite {result.suite} is retired: {RETIRED[result.suite]}")
    if result.suite not in FROZEN:
        raise UsageError(f"suite {result.suite!r} is not known here; known: {', '.join(FROZEN)}")
    if result.digest != FROZEN[result.suite]:
        frozen = FROZEN[result.suite]
        raise UsageError(f"{result.suite} was frozen as {frozen}, this was played on {result.digest!r}")
    return f"{result.suite}, {result.digest}"


def _domains(result: SuiteResult, suite: Suite) -> str:
    for name, played in result.domains.items():
        if name not in suite.domains:
            raise UsageError(f"{name!r} is not in suite {suite.name}")
        level, horizon = suite.domains[name].level, suite.domains[name].horizon
        if (played.level, played.horizon) != (level, horizon):
            here = f"{played.level!r}, {played.horizon}"
            raise UsageError(f"{name} is played at level {level} for {horizon} steps, not {here}")
    if not result.domains:
        raise UsageError("no domain was played")
    missing = tuple(name for name in suite.domains if name not in result.domains)
    listed = ", ".join(missing)
    if missing != result.missing:
        raise UsageError(f"missing are {listed or 'none'}, the file says {', '.join(result.missing) or 'none'}")
    if not missing:
        return f"all {len(suite.domains)}"
    return f"{len(result.domains)} of {len(suite.domains)}; incomplete, without {listed}"


def _starts(result: SuiteResult, suite: Suite) -> str:
    for name, played in result.domains.items():
        frozen = suite.domains[name].starts
        if played.starts.keys() != frozen.keys():
            raise UsageError(f"the starts of {name} are not of its {len(frozen)} tasks")
        for id, start in frozen.items():
            if played.starts[id] != start:
                raise UsageError(f"task {id} started as {played.starts[id]!r}, not as frozen, {start}")
    return f"{sum(len(played.starts) for played in result.domains.values())} tasks, each as frozen"


def _tasks(result: SuiteResult, suite: Suite) -> str:
    for name, played in result.domains.items():
        wanted = Counter((id, sample) for id in suite.domains[name].starts for sample in range(suite.samples))
        present = Counter((episode.task, episode.sample) for episode in played.episodes)
        for (task, sample), count in (present - wanted).items():
            raise UsageError(f"{name} has {count} of sample {sample} of task {task!r} more than the suite")
        for task, sample in wanted - present:
            raise UsageError(f"{name} lacks sample {sample} of task {task}")
    episodes = sum(len(played.episodes) for played in result.domains.values())
    return f"{episodes} episodes, {suite.samples} on each task"


def _numbers(result: SuiteResult, suite: Suite) -> str:
    for played in result.domains.values():
        for episode in played.episodes:
            for wrong in episode.impossible(played.horizon):
                raise UsageError(f"task {episode.task}: {wrong}")
    return "every outcome, length and return is possible"


def _errors(result: SuiteResult, suite: Suite) -> str:
    total = 0
    for name, played in result.domains.items():
        broken = len({episode.task for episode in played.episodes if episode.outcome == Outcome.ERROR})
        total += broken
        if broken > MAX_ERROR_SHARE * len(played.starts):
            share = f"more than {100 * MAX_ERROR_SHARE:g} %"
            raise UsageError(f"{broken} of {len(played.starts)} tasks of {name} ended in an error, {share}")
    return f"{total} tasks ended in an error" if total else "no task ended in an error"


def _same_card(written: Any, result: SuiteResult) -> str:
    card, note, ignored = result.card(), "", set[str]()
    if result.made_with.get("gentax") != gentax.__version__:  # whose intervals may be made in another way
        note, ignored = "; intervals are of another version", {"low", "high"}
    where = _differs(written, card.to_json(), "score", ignored)
    if where is not None:
        raise UsageError(f"{where} is not what the outcomes give")
    if card.mean is None:
        return f"follows from the outcomes{note}; no mean, since domains are missing"
    return f"follows from the outcomes{note}: mean {card.mean.value:.1f} ({card.mean.low:.1f} to {card.mean.high:.1f})"


def _differs(written: Any, due: Any, where: str, ignored: set[str]) -> str | None:
    """Return where two JSON values differ, None when they do not. `due` is ours, so the depth is bounded."""
    if isinstance(due, dict):
        if not isinstance(written, dict) or written.keys() - ignored != due.keys() - ignored:
            return where
        parts = (_differs(written[key], due[key], f"{where}.{key}", ignored) for key in due if key not in ignored)
        return next((part for part in parts if part is not None), None)
    if isinstance(due, float) and isinstance(written, (int, float)) and not isinstance(written, bool):
        return None if -1e9 < written < 1e9 and abs(written - due) <= TOLERANCE else where
    return None if type(written) is type(due) and written == due else where


def _versions(result: SuiteResult) -> str:
    if lacking := [what for what in ("gentax", "python", "platform") if what not in result.made_with]:
        raise UsageError(f"it does not say with which {lacking[0]} it was made")
    known = load_suite(result.suite).domains if result.suite in FROZEN else {}
    here = versions(name for name in result.domains if name in known)
    pairs = {what: (number, here.get(what, "none")) for what, number in result.made_with.items()}
    other = [f"{what} {there} (here {ours})" for what, (there, ours) in pairs.items() if there != ours]
    return f"others than here: {', '.join(other)}" if other else "as installed here"

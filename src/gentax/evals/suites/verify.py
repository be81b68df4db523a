"""Whether a result file holds together: `gentax verify`.

It shows that a file is whole and consistent: the frozen suite, every task once, started as frozen, legal numbers, a
score card that follows from the outcomes. It cannot show that the outcomes are what the named policy did: whoever can
write a file can write another. For that the suite is played again, which gives the same numbers on the same machine
with the same versions; elsewhere floating point may round otherwise, a sampled token may differ, and with it the
outcome of a few episodes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gentax
from gentax.core import Outcome, UsageError
from gentax.evals.suites.lines import harmless
from gentax.evals.suites.result import SuiteResult, parse_result, read_content
from gentax.evals.suites.suite import FROZEN, RETIRED, Suite, load_suite
from gentax.evals.suites.versions import versions
from gentax.metrics.left_out import ERROR_SHARE

TOLERANCE = 1e-6  # percent; the score card is computed in closed form, and sums may round otherwise elsewhere


class Check(NamedTuple):
    """One thing that was checked."""

    name: str
    passed: bool
    found: str  # one line, safe to print whatever the file holds


class _Wrong(Exception):
    """What is wrong with a file."""


def verify(path: str | Path) -> list[Check]:
    """Check a result file, which may hold anything; the checks after one that makes them impossible are not made."""
    try:
        content = read_content(path)
        result = parse_result(content, Path(path).name)
    except UsageError as error:
        return [Check("format", False, harmless(str(error)))]
    checks = [Check("format", True, f"format {content['format']}"), *check_result(result)]
    if all(check.passed for check in checks):
        checks.append(_checked("score card", lambda: _same_card(content.get("score"), result)))
    return [*checks, _checked("versions", lambda: _versions(result))]


def check_result(result: SuiteResult) -> list[Check]:
    """Check a result against the suite it names, without its score card."""
    checks = [_checked("suite", lambda: _suite(result))]
    if not checks[0].passed:
        return checks
    suite = load_suite(result.suite)
    checks.append(_checked("domains", lambda: _domains(result, suite)))
    if not checks[1].passed:
        return checks
    for name, test in (("starts", _starts), ("tasks", _tasks), ("numbers", _numbers), ("errors", _errors)):
        checks.append(_checked(name, lambda test=test: test(result, suite)))
    return checks


def _checked(name: str, test: Callable[[], str]) -> Check:
    try:
        return Check(name, True, harmless(test()))
    except _Wrong as wrong:
        return Check(name, False, harmless(str(wrong)))
    except RecursionError:
        return Check(name, False, "nested deeper than any result is")


def _suite(result: SuiteResult) -> str:
    if result.suite in RETIRED:
        raise _Wrong(f"suite {result.suite} is retired: {RETIRED[result.suite]}")
    if result.suite not in FROZEN:
        raise _Wrong(f"suite {result.suite!r} is not known here; known: {', '.join(FROZEN)}")
    if result.digest != FROZEN[result.suite]:
        raise _Wrong(f"{result.suite} was frozen as {FROZEN[result.suite]}, this was played on {result.digest!r}")
    return f"{result.suite}, {result.digest}"


def _domains(result: SuiteResult, suite: Suite) -> str:
    for name, played in result.domains.items():
        if name not in suite.domains:
            raise _Wrong(f"{name!r} is not in suite {suite.name}")
        frozen = suite.domains[name]
        if (played.level, played.horizon) != (frozen.level, frozen.horizon):
            raise _Wrong(f"{name} is played at level {frozen.level} for {frozen.horizon} steps, not {played.level!r}, "
                         f"{played.horizon}")  # fmt: skip
    if not result.domains:
        raise _Wrong("no domain was played")
    missing = tuple(name for name in suite.domains if name not in result.domains)
    if missing != result.missing:
        raise _Wrong(f"missing are {', '.join(missing) or 'none'}, the file says {', '.join(result.missing) or 'none'}")
    of = f"{len(result.domains)} of {len(suite.domains)}"
    return f"all {len(suite.domains)}" if not missing else f"{of}; incomplete, without {', '.join(missing)}"


def _starts(result: SuiteResult, suite: Suite) -> str:
    for name, played in result.domains.items():
        frozen = suite.domains[name].starts
        if played.starts.keys() != frozen.keys():
            raise _Wrong(f"the starts of {name} are not of its {len(frozen)} tasks")
        for id, start in frozen.items():
            if played.starts[id] != start:
                raise _Wrong(f"task {id} started as {played.starts[id]!r}, not as frozen, {start}")
    return f"{sum(len(played.starts) for played in result.domains.values())} tasks, each as frozen"


def _tasks(result: SuiteResult, suite: Suite) -> str:
    for name, played in result.domains.items():
        wanted = Counter((id, sample) for id in suite.domains[name].starts for sample in range(suite.samples))
        found = Counter((one.task, one.sample) for one in played.episodes)
        for (task, sample), count in (found - wanted).items():
            raise _Wrong(f"{name} has {count} of sample {sample} of task {task!r} more than the suite")
        for (task, sample), _ in (wanted - found).items():
            raise _Wrong(f"{name} lacks sample {sample} of task {task}")
    episodes = sum(len(played.episodes) for played in result.domains.values())
    return f"{episodes} episodes, {suite.samples} on each task"


def _numbers(result: SuiteResult, suite: Suite) -> str:
    for played in result.domains.values():
        for one in played.episodes:
            for wrong in _illegal(one, played.horizon):
                raise _Wrong(f"task {one.task}: {wrong}")
    return "every outcome, length and return is possible"


def _illegal(one: Any, horizon: int) -> Iterator[str]:
    """Yield what is impossible about an episode of a suite with sparse rewards."""
    if one.outcome not in list(Outcome):
        yield f"an outcome is success, failure or error, not {one.outcome!r}"
    broke = one.outcome == Outcome.ERROR
    if not (0 if broke else 1) <= one.length <= horizon:
        yield f"an episode has 1 to {horizon} steps, not {one.length}"
    if not 0 <= one.invalid <= one.length:
        yield f"{one.invalid} of {one.length} actions cannot be invalid"
    if not 0 <= one.truncated <= one.invalid:
        yield f"{one.truncated} of {one.invalid} invalid replies cannot be cut off"
    if not broke and one.ret != (one.outcome == Outcome.SUCCESS):
        yield f"the return of a {one.outcome} is {float(one.outcome == Outcome.SUCCESS):g}, not {one.ret}"
    if not math.isfinite(one.ret):
        yield f"the return is {one.ret}"
    if one.written is not None and one.written < 0:
        yield f"{one.written} tokens cannot be written"


def _errors(result: SuiteResult, suite: Suite) -> str:
    total = 0
    for name, played in result.domains.items():
        broken = len({one.task for one in played.episodes if one.outcome == Outcome.ERROR})
        total += broken
        if broken > ERROR_SHARE * len(played.starts):
            raise _Wrong(f"{broken} of {len(played.starts)} tasks of {name} ended in an error, more than "
                         f"{100 * ERROR_SHARE:g} %")  # fmt: skip
    return f"{total} tasks ended in an error" if total else "no task ended in an error"


def _same_card(said: Any, result: SuiteResult) -> str:
    card, note = result.card(), ""
    due: Any = card.to_json()
    if result.made_with.get("gentax") != gentax.__version__:  # whose intervals may be made in another way
        due, said, note = _without_intervals(due), _without_intervals(said), "; intervals are of another version"
    where = _differs(said, due, "score")
    if where is not None:
        raise _Wrong(f"{where} is not what the outcomes give")
    if card.mean is None:
        return f"follows from the outcomes{note}; no mean, since domains are missing"
    return f"follows from the outcomes{note}: mean {card.mean.value:.1f} ({card.mean.low:.1f} to {card.mean.high:.1f})"


def _without_intervals(card: Any) -> Any:
    """Return a score card with the value and the number of tasks alone of each estimate; what is none, as it is."""
    if not isinstance(card, dict):
        return card
    if "value" in card:
        return {key: card.get(key) for key in ("value", "n")}
    return {key: _without_intervals(one) for key, one in card.items()}


def _differs(said: Any, due: Any, where: str) -> str | None:
    """Return where two JSON values differ, None when they do not. `due` is ours, so the depth is bounded."""
    if isinstance(due, dict):
        if not isinstance(said, dict) or said.keys() != due.keys():
            return where
        return next((w for key in due if (w := _differs(said[key], due[key], f"{where}.{key}")) is not None), None)
    if isinstance(due, float) and isinstance(said, (int, float)) and not isinstance(said, bool):
        return None if -1e9 < said < 1e9 and abs(said - due) <= TOLERANCE else where
    return None if type(said) is type(due) and said == due else where


def _versions(result: SuiteResult) -> str:
    if lacking := [what for what in ("gentax", "python", "platform") if what not in result.made_with]:
        raise _Wrong(f"it does not say with which {lacking[0]} it was made")
    here = versions(name for name in result.domains if name in _known(result))
    said = {what: (number, here.get(what, "none")) for what, number in result.made_with.items()}
    other = [f"{what} {there} (here {ours})" for what, (there, ours) in said.items() if there != ours]
    return f"others than here: {', '.join(other)}" if other else "as installed here"


def _known(result: SuiteResult) -> set[str]:
    return set(load_suite(result.suite).domains) if result.suite in FROZEN else set()

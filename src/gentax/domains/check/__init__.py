"""The conformance check: whether an environment keeps what `TextEnv` promises.

`CHECKS` lists all checks in order, each with its share of the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from gentax.core.errors import unknown
from gentax.domains.check.harness import (
    QUICK,
    CheckBudget,
    CheckFailed,
    CheckReport,
    Harness,
    NotApplicable,
    Result,
    Verdict,
)
from gentax.domains.check.interface import (
    admissible_accepted,
    any_string,
    errors,
    exact_horizon,
    readable_texts,
    reward_bounds,
    signatures,
)
from gentax.domains.check.resources import flat_memory, resources_released
from gentax.domains.check.tasks import (
    disjoint_splits,
    expert_wins,
    other_process,
    same_episode,
    same_start,
    shared_contents,
)

CHECKS: tuple[tuple[str, float, Callable[[Harness], str]], ...] = (  # name, share of the time, what is done
    ("signatures", 0.0, signatures),
    ("errors", 0.0, errors),
    ("same start", 0.06, same_start),
    ("same episode", 0.06, same_episode),
    ("other process", 0.0, other_process),
    ("contents", 0.2, shared_contents),
    ("disjoint splits", 0.12, disjoint_splits),
    ("expert", 0.16, expert_wins),
    ("rewards", 0.08, reward_bounds),
    ("admissible", 0.08, admissible_accepted),
    ("texts", 0.06, readable_texts),
    ("any string", 0.0, any_string),
    ("horizon", 0.0, exact_horizon),
    ("memory", 0.18, flat_memory),  # late, when caches are full
    ("close", 0.0, resources_released),  # last: it closes the environment that the others play
)
LINE = 400  # characters of what was found


def check(
    name: str,
    level: str | None = None,
    *,
    effort: CheckBudget | None = None,
    only: Iterable[str] = (),
    on_check: Callable[[str], None] | None = None,
    on_result: Callable[[Result], None] | None = None,
    **settings: Any,
) -> CheckReport:
    """Check that an environment keeps what `TextEnv` promises, so that it can be trained and evaluated on.

    Left out: environments that never return from a call; nothing here can stop them.

    Args:
        name: what `gentax.make` takes.
        level: one of its levels; its default when None.
        effort: how much to do; `CheckBudget()` when None, `QUICK` for a look.
        only: names in `CHECKS`; all when empty.
        on_check: called with the name of each check before it is made.
        on_result: called with each result as it is known.
        settings: what else `gentax.make` is given.

    Raises:
        UsageError: there is no such environment, level, setting or check.
    """
    effort = effort or CheckBudget()
    chosen, known = set(only), [title for title, _, _ in CHECKS]
    for title in sorted(chosen.difference(known)):
        raise unknown("check", title, known)
    harness = Harness(name, level, effort, settings)
    results = []
    try:
        for title, share, run_check in CHECKS:
            if chosen and title not in chosen:
                continue
            if on_check is not None:
                on_check(title)
            result = _run_check(harness, title, share * effort.seconds, run_check)
            results.append(result)
            if on_result is not None:
                on_result(result)
    finally:
        with suppress(Exception):  # what close does wrong has been reported
            harness.close()
    return CheckReport(name, harness.level, effort, tuple(results))


def _run_check(harness: Harness, title: str, seconds: float, run_check: Callable[[Harness], str]) -> Result:
    """Make one check. Whatever the environment raises is a failure of the check, and the next one goes on."""
    started = time.monotonic()
    harness.start_timer(seconds)
    try:
        try:
            verdict, message = Verdict.PASSED, run_check(harness)
        finally:
            harness.close_extra()
    except NotApplicable as reason:
        verdict, message = Verdict.NOT_APPLICABLE, str(reason)
    except CheckFailed as failed:
        verdict, message = Verdict.FAILED, _with_location(harness, str(failed))
    except Exception as error:
        verdict, message = Verdict.FAILED, _with_location(harness, f"raises {type(error).__name__}: {error}")
    # One line that any file takes: an error may quote what cannot be written.
    line = " ".join(message.encode("utf-8", "backslashreplace").decode().split())[:LINE]
    return Result(title, verdict, line, time.monotonic() - started)


def _with_location(harness: Harness, what: str) -> str:
    return f"{harness.location}: {what}" if harness.location else what


__all__ = ["CHECKS", "QUICK", "CheckBudget", "CheckReport", "Result", "Verdict", "check"]

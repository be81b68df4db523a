"""The conformance check: whether an environment keeps what `TextEnv` promises."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from gentax.core.errors import unknown
from gentax.domains.check import checks
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

CHECKS: tuple[tuple[str, float, Callable[[Harness], str]], ...] = (  # in order: name, share of the time, the check
    ("interface", 0.0, checks.interface),
    ("same episode", 0.16, checks.same_episode),
    ("other process", 0.0, checks.other_process),
    ("claims", 0.0, checks.claims),
    ("contents", 0.24, checks.disjoint_contents),
    ("disjoint splits", 0.16, checks.disjoint_splits),
    ("expert", 0.2, checks.expert_wins),
    ("rewards", 0.08, checks.reward_bounds),
    ("admissible", 0.08, checks.admissible_accepted),
    ("texts", 0.08, checks.readable_texts),
    ("any string", 0.0, checks.any_string),
    ("close", 0.0, checks.resources_released),  # last: it closes the environment that the others play
)
MESSAGE_LIMIT = 400  # characters


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

    Args:
        name: what `gentax.make` takes.
        level: one of its levels; its default when None.
        effort: how much to do; `CheckBudget()` when None, `QUICK` for a first look.
        only: names in `CHECKS`; all when empty.
        on_check: called with the name of each check before it runs.
        on_result: called with each result as it is known.
        settings: what else `gentax.make` is given.

    Raises:
        UsageError: there is no such environment, level, setting or check.
    """
    effort = effort or CheckBudget()
    selected, known = set(only), [title for title, _, _ in CHECKS]
    for title in sorted(selected.difference(known)):
        raise unknown("check", title, known)
    harness = Harness(name, level, effort, settings)
    results = []
    try:
        for title, share, run_check in CHECKS:
            if selected and title not in selected:
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
    """Run one check. Whatever the environment raises fails that check alone."""
    started = time.monotonic()
    harness.start_timer(seconds)
    try:
        try:
            verdict, message = Verdict.PASSED, run_check(harness)
        finally:
            harness.close_extra()
    except NotApplicable as reason:
        verdict, message = Verdict.NOT_APPLICABLE, str(reason)
    except Exception as error:
        what = str(error) if isinstance(error, CheckFailed) else f"raises {type(error).__name__}: {error}"
        verdict, message = Verdict.FAILED, f"{harness.location}: {what}" if harness.location else what
    # One line that any file takes: an error may quote what cannot be written.
    line = " ".join(message.encode("utf-8", "backslashreplace").decode().split())[:MESSAGE_LIMIT]
    return Result(title, verdict, line, time.monotonic() - started)


__all__ = ["CHECKS", "QUICK", "CheckBudget", "CheckReport", "Result", "Verdict", "check"]

"""The conformance check: whether an environment keeps what `TextEnv` promises."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from gentax.core.errors import unknown
from gentax.domains.check.checks import CHECKS
from gentax.domains.check.harness import QUICK, CheckBudget, CheckReport, Harness, Result, Verdict

__all__ = ["CHECKS", "QUICK", "CheckBudget", "CheckReport", "Result", "Verdict", "check"]


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
            results.append(harness.run(title, share * effort.seconds, run_check))
            if on_result is not None:
                on_result(results[-1])
    finally:
        with suppress(Exception):  # what close does wrong has been reported
            harness.env.close()
    return CheckReport(name, harness.level, effort, tuple(results))

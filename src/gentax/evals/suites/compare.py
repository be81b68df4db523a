"""Two results of one suite as a tax: nothing is played again."""

from __future__ import annotations

import numpy as np

from gentax.core import UsageError
from gentax.evals.suites.lines import harmless
from gentax.evals.suites.result import SuiteResult
from gentax.evals.suites.suite import RETIRED, load_suite
from gentax.evals.suites.verify import check_result


def paired(before: SuiteResult, after: SuiteResult) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the scores of two policies on the domains that both played, as `measure.tax.tax_report` takes them.

    Raises:
        UsageError: results of a retired suite or of different suites, results that `gentax verify` refuses, or no
            domain in common.
    """
    for result in (before, after):
        if result.suite in RETIRED:
            raise UsageError(
                f"the result of {harmless(result.policy, 80)} is of suite {result.suite}, which is retired: "
                f"{RETIRED[result.suite]}"
            )
    if (before.suite, before.digest) != (after.suite, after.digest):
        names = [f"{harmless(one.suite, 40)} ({harmless(one.digest, 40)})" for one in (before, after)]
        raise UsageError(f"results of different suites do not compare: {names[0]} and {names[1]}")
    for result in (before, after):
        for check in check_result(result):
            if not check.passed:
                raise UsageError(
                    f"the result of {harmless(result.policy, 80)} is not sound: {check.name}: {check.found}"
                )
    suite = load_suite(before.suite)  # whose order pairs the tasks, whatever the order of a file
    common = [name for name in suite.domains if name in before.domains and name in after.domains]
    if not common:
        raise UsageError(f"the two results have no domain of suite {before.suite} in common")
    first, second = (
        {name: one.domains[name].scores(suite.domains[name].starts) for name in common} for one in (before, after)
    )
    return first, second

"""Frozen suites of test tasks: played alike everywhere, with results that can be checked and compared.

result = play_suite("runs/mine/step-000100", "v1", out="mine.json")
print(result.card().mean)
report = tax_report("sokoban", *paired(read_result("base.json"), result))
"""

from gentax.evals.suites.result import (
    Check,
    DomainResult,
    PlayedEpisode,
    ScoreCard,
    SuiteResult,
    paired,
    read_result,
    verify,
    write_suite_result,
)
from gentax.evals.suites.run import play_suite
from gentax.evals.suites.suite import FROZEN, ActionTrace, Suite, SuiteDomain, load_suite

__all__ = [
    "FROZEN",
    "ActionTrace",
    "Check",
    "DomainResult",
    "PlayedEpisode",
    "ScoreCard",
    "Suite",
    "SuiteDomain",
    "SuiteResult",
    "load_suite",
    "paired",
    "play_suite",
    "read_result",
    "verify",
    "write_suite_result",
]  # fmt: skip

"""The conformance check: whether an environment keeps what `TextEnv` promises. One idea a file; `run` has the list."""

from gentax.domains.check.result import QUICK, CheckReport, Effort, Result, Verdict
from gentax.domains.check.run import CHECKS, check

__all__ = ["CHECKS", "QUICK", "CheckReport", "Effort", "Result", "Verdict", "check"]

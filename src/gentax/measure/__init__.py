"""What episodes come to: success, tax, axes, and sentences that say no more than the numbers allow."""

from gentax.measure.check import CheckReport, Effort, check
from gentax.measure.evaluate import Evaluation, evaluate
from gentax.measure.played import tax

__all__ = ["CheckReport", "Effort", "Evaluation", "check", "evaluate", "tax"]

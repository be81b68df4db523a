"""What episodes come to: success, tax, axes, and sentences that say no more than the numbers allow."""

from gentax.measure.evaluate import Evaluation, evaluate, tax

__all__ = ["Evaluation", "evaluate", "tax"]

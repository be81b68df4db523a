"""What episodes come to: success, tax, axes, and sentences that say no more than the numbers allow.

Nothing is loaded here: `gentax.metrics.statistics` is of use to people who play nothing.
"""

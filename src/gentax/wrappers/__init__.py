"""Wrappers for any text environment: distractors, interface shifts, shaped reward, shorter horizon.

Each keeps the task, the dynamics and the outcome; it changes what the agent reads, how it writes, or what it is paid.
They nest in any order. Left out: what a constructor already does, such as `make(..., reward="dense")`.
"""

from gentax.wrappers.base import Horizon, Shaping, TextWrapper
from gentax.wrappers.distractors import Distractor, distract
from gentax.wrappers.interface_shift import Calls, Layout, Menu, Rename
from gentax.wrappers.spec import parse_wrapper, wrap

__all__ = [
    "Calls", "Distractor", "Horizon", "Layout", "Menu", "Rename", "Shaping", "TextWrapper",
    "distract", "parse_wrapper", "wrap",
]  # fmt: skip

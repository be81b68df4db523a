"""Wrappers for any text environment: distractors, interface shifts, shaped reward, shorter horizon.

Each keeps the task, the dynamics and the outcome; it changes what the agent reads, how it writes, or what it is paid.
They nest in any order. Left out: what a constructor already does, such as `make(..., reward="dense")`.
"""

from gentax.wrappers.actions import Calls, Menu
from gentax.wrappers.base import Horizon, TextWrapper
from gentax.wrappers.distractors import Distractor, distract
from gentax.wrappers.observations import Layout, SokobanLayout
from gentax.wrappers.rename import Rename
from gentax.wrappers.reward import Shaping, dense
from gentax.wrappers.spec import parse_wrapper, wrap

__all__ = [
    "Calls", "Distractor", "Horizon", "Layout", "Menu", "Rename", "Shaping", "SokobanLayout", "TextWrapper",
    "dense", "distract", "parse_wrapper", "wrap",
]  # fmt: skip

"""A shorter horizon for an environment that is made already; a longer one is for `make(..., horizon=N)`."""

from __future__ import annotations

from typing import Any

import gymnasium

from gentax.core.errors import UsageError
from gentax.wrappers.base import TextWrapper


class Horizon(TextWrapper):
    """Cuts episodes off after `steps` steps.

    Raises:
        UsageError: fewer than 1 step, or more than the environment allows itself.
    """

    def __init__(self, env: gymnasium.Env[str, str], steps: int) -> None:
        super().__init__(env, steps=steps)
        allowed = self.text_env.horizon
        if not 1 <= steps <= allowed:
            raise UsageError(f"a horizon of {steps} steps is not from 1 to the environment's {allowed}")
        self._steps = steps
        self._over = False

    @property
    def horizon(self) -> int:
        return self._steps

    def enter(self) -> None:
        self._over = False

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self._over:
            raise gymnasium.error.ResetNeeded("this episode is over: call reset() before step()")
        observation, reward, terminated, truncated, info = super().step(action)
        truncated = truncated or (not terminated and self.steps >= self._steps)
        self._over = terminated or truncated
        return observation, reward, terminated, truncated, info

"""Reward before success, without changing what is best to do: potential-based shaping.

A. Ng, D. Harada, S. Russell: Policy invariance under reward transformations (ICML 1999). Each step is paid, beside
the environment's own reward,

    F(s, s') = γ φ(s') − φ(s),   φ(s) = −d(s) / d(start),

where d is the expert's distance to success. The discounted sum over an episode telescopes to γ^T φ(s_T) − φ(s_0). φ is
0 where the episode has ended by itself, won or lost, so all such episodes gain the same, +1 from shaping in all, and
their order stays as it was. An episode that is cut off has not ended in this sense: it keeps φ of where it stopped,
so of two that ran out of time the one that came nearer is paid more. That is the use of it where only the sum is seen.
"""

from __future__ import annotations

from typing import Any

import gymnasium

from gentax.core.errors import UsageError
from gentax.wrappers.base import TextWrapper

LOST = 2.0  # the distance, in distances at the start, of a state from which the expert sees no way; also the largest


class Shaping(TextWrapper):
    """Adds F to the reward of every step.

    Args:
        env: an environment with `distance()`.
        gamma: the discount γ of whoever learns; 1 where returns are not discounted.

    Raises:
        UsageError: the domain has no distance, or gamma is outside (0, 1].
    """

    def __init__(self, env: gymnasium.Env[str, str], gamma: float = 1.0) -> None:
        super().__init__(env, gamma=gamma)
        if not hasattr(self, "distance"):
            raise UsageError(f"domain {self.domain.name!r} has no distance to shape by: make it with reward='dense'")
        if not 0 < gamma <= 1:
            raise UsageError(f"gamma must be above 0 and at most 1, not {gamma}")
        self.gamma = gamma
        self._unit = 1.0
        self._potential = 0.0

    @property
    def reward(self) -> str:
        return "shaped"

    def on_reset(self) -> None:
        self._unit = float(self.distance() or 1)
        self._potential = self.potential()

    def potential(self) -> float:
        """Return φ of the present state: −1 at the start, 0 at success, −2 where the expert sees no way."""
        left = self.distance()
        return -LOST if left is None else -min(LOST, left / self._unit)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        before, self._potential = self._potential, 0.0 if terminated else self.potential()
        return observation, reward + self.gamma * self._potential - before, terminated, truncated, info


def dense(env: gymnasium.Env[str, str], gamma: float = 1.0) -> gymnasium.Env[str, str]:
    """Return `env` as it is when made with reward="dense", the domain's own; shaped by distance otherwise."""
    return env if getattr(env, "reward", "") == "dense" else Shaping(env, gamma)

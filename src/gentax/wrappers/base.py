"""What every wrapper of a text environment has in common (it answers whatever a `TextEnv` answers), and two short ones.

A `gymnasium.Wrapper` that delegates and copies nothing. A wrapper overrides a hook: `transform_observation`,
`transform_action` and its inverse `write_action`, `transform_rules` or `on_reset`; or `goal`, `horizon` and the rest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
from gymnasium.utils import RecordConstructorArgs

from gentax.core.env import Domain, ExpertAction, TextEnv
from gentax.core.errors import UsageError


class TextWrapper(gymnasium.Wrapper[str, str, str, str], RecordConstructorArgs):
    """Delegates everything. Other gymnasium wrappers may stand between it and the environment.

    Args:
        env: a `TextEnv`, wrapped or not.
        settings: what the subclass was made with, so that `spec` can make it again.

    Raises:
        UsageError: `env` holds no `TextEnv`.
    """

    def __init__(self, env: gymnasium.Env[str, str], **settings: Any) -> None:
        RecordConstructorArgs.__init__(self, **settings)
        super().__init__(env)
        text = env
        while not isinstance(text, (TextEnv, TextWrapper)):
            if not isinstance(text, gymnasium.Wrapper):
                raise UsageError(f"{type(self).__name__} wraps text environments of gentax, not {type(text).__name__}")
            text = text.env
        self.text_env: TextEnv | TextWrapper = text  # the nearest that knows tasks and goals
        self.observation = ""  # as the agent last read it
        self._domains: tuple[Domain, Domain] | None = None

    # What a wrapper may override.

    def on_reset(self) -> None:
        """Do what an episode that has just begun needs; the inner environment is ready."""

    def transform_observation(self, observation: str, /) -> str:
        """Return what the agent reads in place of `observation`."""
        return observation

    def transform_action(self, action: str, /) -> str:
        """Return the inner environment's action for what the agent wrote, any string at all."""
        return action

    def write_action(self, action: str, /) -> str:
        """Return how the agent writes an action of the inner environment: the inverse of `transform_action`."""
        return action

    def transform_rules(self, rules: str, /) -> str:
        """Return what the agent is told in place of the domain's rules."""
        return rules

    # Gymnasium's side.

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self.on_reset()
        self.observation = self.transform_observation(observation)
        return self.observation, {**info, "goal": self.goal}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(self.transform_action(action))
        self.observation = self.transform_observation(observation)
        return self.observation, float(reward), terminated, truncated, info

    def render(self) -> str:
        """Return the inner picture; what the agent reads where that is only the observation."""
        shown = self.env.render()
        return self.observation if shown == self.text_env.observation else str(shown)

    # A text environment's side.

    @property
    def unwrapped(self) -> TextEnv:
        return self.text_env.unwrapped

    @property
    def domain(self) -> Domain:
        inner = self.text_env.domain
        if self._domains is None or self._domains[0] is not inner:
            rules = self.transform_rules(inner.rules)
            self._domains = inner, inner if rules == inner.rules else replace(inner, rules=rules)
        return self._domains[1]

    @property
    def goal(self) -> str:
        return self.text_env.goal

    @property
    def horizon(self) -> int:
        return self.text_env.horizon

    def admissible(self) -> list[str] | None:
        actions = self.text_env.admissible()
        return None if actions is None else list(map(self.write_action, actions))

    def expert(self) -> ExpertAction | None:
        move = self.text_env.expert()
        return None if move is None else move._replace(action=self.write_action(move.action))

    def __getattr__(self, name: str) -> Any:
        """Answer as the text environment does, for all that is not written here: `task`, `steps`, `distance`, …"""
        if name.startswith("_") or name == "text_env":  # not there yet, or no wrapper's business
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.text_env, name)


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

    def on_reset(self) -> None:
        self._over = False

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self._over:
            raise gymnasium.error.ResetNeeded("this episode is over: call reset() before step()")
        observation, reward, terminated, truncated, info = super().step(action)
        truncated = truncated or (not terminated and self.steps >= self._steps)
        self._over = terminated or truncated
        return observation, reward, terminated, truncated, info


LOST = 2.0  # the distance, in distances at the start, of a state from which the expert sees no way; also the largest


class Shaping(TextWrapper):
    """Potential-based reward shaping (Ng, Harada, Russell, ICML 1999): it does not change what is best to do.

    Adds F(s, s') = γ φ(s') − φ(s) to the reward of every step, where φ(s) = −d(s) / d(start) and d is the expert's
    distance to success. φ is 0 where the episode has ended by itself, won or lost, so that all such episodes gain the
    same. An episode that is cut off keeps φ of where it stopped: the one that came nearer is paid more.

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

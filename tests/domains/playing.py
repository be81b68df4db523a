"""Play a domain's expert on one task, for the tests of domains."""

from __future__ import annotations

import random

from gentax.core import ExpertAction, TextEnv


def play_expert(env: TextEnv, index: int, slips: float = 0.0) -> tuple[list[ExpertAction], list[float], bool]:
    """Play task `index` of the environment's split to its end; return the expert's moves, the rewards and success.

    A random admissible action is taken instead with probability `slips`, and where the expert has no move.
    """
    rng = random.Random(index)
    env.reset(options={"index": index})
    moves, rewards = [], []
    while True:
        move = env.expert()
        if move is not None:
            moves.append(move)
        action = rng.choice(env.admissible()) if move is None or rng.random() < slips else move.action
        _, reward, terminated, truncated, info = env.step(action)
        assert info["valid"], (index, action)
        rewards.append(reward)
        if terminated or truncated:
            return moves, rewards, info["success"]

"""Play a domain's expert on one task, for the tests of domains."""

from __future__ import annotations

import random

from gentax.core import ExpertAction, TextEnv


def play_expert(env: TextEnv, index: int, slips: float = 0.0) -> tuple[list[ExpertAction], list[float], bool]:
    """Play task `index` of the environment's split to its end; return the expert's moves, the rewards and success.

    Without slips the expert must have a move at every step; its moves must be admissible where all actions are listed.

    Args:
        env: any domain's.
        index: of the task.
        slips: the probability that a random admissible action is taken instead, as it also is where the expert has no
            move.
    """
    rng = random.Random(index)
    env.reset(options={"index": index})
    moves, rewards = [], []
    while True:
        move = env.expert()
        assert slips or move is not None, (env.task, moves)
        if move is not None:
            # ScienceWorld takes more words for a thing than it lists, and WebShop's search page any query.
            listed = env.domain.name != "sciworld" and not move.action.startswith("search[")
            assert not listed or move.action in env.admissible(), (env.task, move)
            moves.append(move)
        action = rng.choice(env.admissible()) if move is None or rng.random() < slips else move.action
        _, reward, terminated, truncated, info = env.step(action)
        assert info["valid"], (index, action)
        rewards.append(reward)
        if terminated or truncated:
            return moves, rewards, info["success"]

"""Policies that look at the environment and not at the prompt: random, expert, and an expert that errs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gentax.core import EnvironmentFault, Move
from gentax.policies.protocol import Reply, Turn
from gentax.policies.reply import write_reply


class RandomPolicy:
    """Draws one of the admissible actions; says "wait" where the environment cannot list them."""

    name = "random"

    def reply(self, turns: Sequence[Turn]) -> list[Reply]:
        return [_guarded(lambda turn: Move(_draw(turn)), turn) for turn in turns]


class ExpertPolicy:
    """Plays the domain's expert; draws an admissible action with probability `noise`, and where the expert is lost."""

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise
        self.name = "expert" if noise == 0 else f"expert with {noise:.0%} random actions"

    def reply(self, turns: Sequence[Turn]) -> list[Reply]:
        return [_guarded(self._move, turn) for turn in turns]

    def _move(self, turn: Turn) -> Move:
        move = None if self.noise and turn.rng.random() < self.noise else turn.env.expert()
        return Move(_draw(turn)) if move is None else move


def _guarded(choose: Callable[[Turn], Move], turn: Turn) -> Reply:
    try:
        move = choose(turn)
    except EnvironmentFault:
        return Reply("")  # the engine will meet the same fault and replay the episode
    return Reply(write_reply(move.action, move.thought if turn.thinking else None))


def _draw(turn: Turn) -> str:
    actions = turn.env.admissible()
    return actions[int(turn.rng.integers(len(actions)))] if actions else "wait"

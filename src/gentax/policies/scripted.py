"""Policies that use the environment and not the prompt: random, expert, and an expert with errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gentax.core import EnvironmentFault, ExpertAction
from gentax.models.action_format import write_reply
from gentax.policies.protocol import PolicyRequest, Reply

KNOWN = 1024  # actions remembered, at most


class RandomPolicy:
    """Samples an admissible action; "wait" where the environment cannot list them."""

    name = "random"

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        return [_guarded(lambda turn: ExpertAction(_sample_admissible(turn)), turn) for turn in turns]


class ExpertPolicy:
    """Plays the domain's expert, with random errors at rate `noise`.

    An error is an action this policy knows from other states of the domain; like a model's errors, many are invalid
    here, which shows how to continue after them. Where the expert has no action, an admissible one is sampled.
    """

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise
        self.name = "expert" if noise == 0 else f"expert with {noise:.0%} slips"
        self._known: dict[str, dict[str, None]] = {}  # domain -> the actions of its expert so far, in order

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        return [_guarded(self._next_action, turn) for turn in turns]

    def _next_action(self, turn: PolicyRequest) -> ExpertAction:
        known = self._known.setdefault(turn.env.domain.name, {})
        if self.noise and known and turn.rng.random() < self.noise:
            return ExpertAction(list(known)[int(turn.rng.integers(len(known)))])
        move = turn.env.expert()
        if move is None:
            return ExpertAction(_sample_admissible(turn))
        if len(known) < KNOWN:
            known[move.action] = None
        return move


SCRIPTED = (RandomPolicy, ExpertPolicy)  # they ignore the prompt and always use the action format


def _guarded(choose: Callable[[PolicyRequest], ExpertAction], turn: PolicyRequest) -> Reply:
    try:
        move = choose(turn)
    except EnvironmentFault:
        return Reply("")  # the engine will meet the same fault and replay the episode
    return Reply(write_reply(move.action, move.thought if turn.chat.thinking else None, turn.chat.action_format))


def _sample_admissible(turn: PolicyRequest) -> str:
    actions = turn.env.admissible()
    return actions[int(turn.rng.integers(len(actions)))] if actions else "wait"

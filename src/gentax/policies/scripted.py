"""Policies that look at the environment and not at the prompt: random, expert, and an expert that errs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gentax.core import EnvironmentFault, ExpertAction
from gentax.models.action_format import write_reply
from gentax.policies.protocol import PolicyRequest, Reply

KNOWN = 1024  # actions a player remembers, at most


class RandomPolicy:
    """Draws one of the admissible actions; says "wait" where the environment cannot list them."""

    name = "random"

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        return [_guarded(lambda turn: ExpertAction(_draw(turn)), turn) for turn in turns]


class ExpertPolicy:
    """Plays the domain's expert, and slips with probability `noise`.

    A slip is an action that this player knows from the domain's other states, so that, as with a model's own errors,
    many are refused here; what follows shows how to go on after a refusal. Where the expert is lost, an admissible
    action is drawn.
    """

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise
        self.name = "expert" if noise == 0 else f"expert with {noise:.0%} slips"
        self._known: dict[str, dict[str, None]] = {}  # domain -> the actions of its expert so far, in order

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        return [_guarded(self._move, turn) for turn in turns]

    def _move(self, turn: PolicyRequest) -> ExpertAction:
        known = self._known.setdefault(turn.env.domain.name, {})
        if self.noise and known and turn.rng.random() < self.noise:
            return ExpertAction(list(known)[int(turn.rng.integers(len(known)))])
        move = turn.env.expert()
        if move is None:
            return ExpertAction(_draw(turn))
        if len(known) < KNOWN:
            known[move.action] = None
        return move


SCRIPTED = (RandomPolicy, ExpertPolicy)  # they read no prompt and always reply in the grammar


def _guarded(choose: Callable[[PolicyRequest], ExpertAction], turn: PolicyRequest) -> Reply:
    try:
        move = choose(turn)
    except EnvironmentFault:
        return Reply("")  # the engine will meet the same fault and replay the episode
    return Reply(write_reply(move.action, move.thought if turn.chat.thinking else None, turn.chat.action_format))


def _draw(turn: PolicyRequest) -> str:
    actions = turn.env.admissible()
    return actions[int(turn.rng.integers(len(actions)))] if actions else "wait"

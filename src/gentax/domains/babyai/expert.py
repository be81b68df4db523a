"""The expert: the package's bot, told of every step, and its plan put into a sentence."""

from __future__ import annotations

from typing import Any

from minigrid.core.actions import Actions
from minigrid.core.world_object import WorldObj
from minigrid.envs.babyai.core.verifier import ObjDesc
from minigrid.utils.baby_ai_bot import (
    BabyAIBot,
    CloseSubgoal,
    DisappearedBoxError,
    DropSubgoal,
    GoNextToSubgoal,
    OpenSubgoal,
    PickupSubgoal,
)

from gentax.domains.babyai.world import called, place

_DOING = {Actions.left: "turn left", Actions.right: "turn right", Actions.forward: "go forward"}
# What the bot raises where it has no plan: its assertions, a box that was opened, things that are no longer there.
_LOST = (AssertionError, DisappearedBoxError, AttributeError, IndexError, TypeError)


class BotExpert:
    """The bot in a world, from its present state on. Once the bot has no plan it has none for good."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._bot: BabyAIBot | None = BabyAIBot(world)
        self._move: tuple[Actions, str] | None = None
        self._replan(None)

    def move(self) -> tuple[Actions, str] | None:
        """Return what the bot would do now, and why; None where it is lost."""
        return self._move

    def observe(self, action: Actions) -> None:
        """Tell the bot of a step that was made, be it the one it planned or not."""
        self._replan(action)

    def _replan(self, action: Actions | None) -> None:
        if self._bot is None:
            return
        try:
            planned = self._bot.replan(action)
            self._move = planned, self._why(planned)
        except _LOST:
            self._bot = self._move = None

    def _why(self, action: Actions) -> str:
        """Return the bot's present subgoal as a sentence."""
        if not self._bot.stack:
            return "I am there already."
        subgoal = self._bot.stack[-1]
        world = self._world
        ahead = world.grid.get(*world.front_pos)
        if isinstance(subgoal, PickupSubgoal):
            return f"The {called(ahead)} is 1 ahead: pick it up."
        if isinstance(subgoal, DropSubgoal):
            return f"Here is a place for the {called(world.carrying)}: drop it."
        if isinstance(subgoal, OpenSubgoal):
            return f"The {called(ahead)} is 1 ahead: open it."
        if isinstance(subgoal, CloseSubgoal):
            return f"The {called(ahead)} has to be closed first."
        if isinstance(subgoal, GoNextToSubgoal):
            return self._way(subgoal, _DOING.get(action, "make way"))
        return ""

    def _way(self, subgoal: GoNextToSubgoal, doing: str) -> str:
        """Return where the bot is going."""
        target, reason = subgoal.datum, subgoal.reason
        if reason == "Explore":
            return f"{self._sought()}: {doing}."
        if isinstance(target, ObjDesc):
            target, _ = self._bot._find_obj_pos(target, reason == "PutNext")
        if isinstance(target, WorldObj):
            what, where = f"The {called(target)}", self._relative(target.cur_pos)
        else:
            what, where = "A free place", self._relative(target)
        return f"{what} is {where}: {doing}."

    def _sought(self) -> str:
        """Return what the bot has not found yet."""
        for subgoal in reversed(self._bot.stack):
            if isinstance(subgoal, GoNextToSubgoal) and isinstance(subgoal.datum, ObjDesc):
                desc = subgoal.datum
                return f"I have not seen the {' '.join(filter(None, (desc.color, desc.type or 'thing')))} yet"
        return "I have to look around"

    def _relative(self, position: Any) -> str:
        """Return a position as counted from the agent."""
        world = self._world
        x, y = (int(there - here) for there, here in zip(position, world.agent_pos, strict=True))
        ahead, right = world.dir_vec, world.right_vec
        return place(int(x * ahead[0] + y * ahead[1]), int(x * right[0] + y * right[1])) or "where I stand"

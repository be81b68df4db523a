"""The Sokoban environment: text in, text out, over generated rooms or the rooms of an XSB file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gentax.core.env import ExpertAction, StepResult, Task, TextEnv
from gentax.core.errors import UsageError
from gentax.domains.sokoban import DOMAIN, parse_level
from gentax.domains.sokoban.board import (
    ACTIONS,
    PLAYER,
    PLAYER_BITS,
    Renderer,
    cells,
    deltas,
    move,
    places,
)
from gentax.domains.sokoban.rooms import Collection, read_xsb, start_of, tasks_of

ACTION_LIMIT = 32  # characters; no longer string is looked at


class Sokoban(TextEnv):
    """Push every box onto a target.

    An action is `up`, `down`, `left` or `right`, in any case, with any space around it. One that moves nothing is
    answered with "Blocked." and counts as invalid, as does a string that is no action: both are what the paper
    penalises, and `admissible` lists neither. The dense reward is the share of the pushes needed at the start (each
    box to its nearest target, alone in the room) that is newly saved; success completes it to 1.

    Args:
        level: `6x6` and the other named ones, or any `ROWSxCOLUMNS-BOXES-MIN-MAX`.
        rendering: "coordinates" (short; small models learn from it), "grid" or "both".
        xsb: a text file of rooms in the usual format. Its level is called `xsb-` and a hash of the file, so that a
            task names the same room everywhere. Its rooms are dealt out to the splits like all others, by a hash of
            each room, in the order of the file; a split that gets none is refused. The horizon is by default the
            largest (boxes + 1) * floor cells among the rooms.

    Raises:
        UsageError: a level, rendering or file that cannot be used; the message says why and how to mend it.
    """

    domain = DOMAIN

    def __init__(
        self,
        level: str | None = None,
        *,
        rendering: str = "coordinates",
        xsb: str | Path | None = None,
        **settings: Any,
    ) -> None:
        self._collection: Collection | None = None
        if xsb is not None:
            self._collection = read_xsb(xsb)
            if level not in (None, "xsb", self._collection.level):
                raise UsageError(f"level {level!r} is not that of {xsb}, {self._collection.level!r}: leave level out")
            level = self._collection.level
        elif level is not None and (level == "xsb" or level.startswith("xsb-")):
            raise UsageError(f"level {level!r} of sokoban needs the file it stands for: xsb=FILE")
        else:
            self._spec = parse_level(DOMAIN.default_level if level is None else level)
        super().__init__(level, **settings)
        self._renderer = Renderer(rendering)
        self._delta: dict[str, int] = {}

    def size(self, split: str) -> int:
        return len(self._collection.rooms[split]) if self._collection else tasks_of(self._spec, split)

    def level_horizon(self) -> int:
        return self._collection.horizon if self._collection else self._spec.horizon

    def _reset_task(self, task: Task) -> tuple[str, str]:
        start = self._collection.start(task) if self._collection else start_of(self._spec, task)
        room, distances, self._content = start
        self.room, self._distances, self.state = room, distances, room.start
        self._walls, self._solved = room.walls, room.targets
        self._delta = dict(zip(ACTIONS, deltas(room.columns), strict=True))
        self._reward_paid = 0.0  # of the dense reward
        self._fewest = self._first = 0 if self.reward == "sparse" else self._needed(room.start >> PLAYER_BITS)
        self._renderer.set_room(room)
        return self._goal(), self._renderer.text(room.start)

    def _step(self, action: str) -> StepResult:
        delta = self._delta.get(action)
        if delta is None:
            delta = self._delta.get(action.strip().lower()) if len(action) <= ACTION_LIMIT else None
            if delta is None:
                return StepResult("Unknown action. " + self._renderer.text(self.state), 0.0, False, False, False)
        before = self.state
        after = move(self._walls, before, delta)
        if after == before:
            return StepResult("Blocked. " + self._renderer.text(before), 0.0, False, False, False)
        self.state = after
        boxes = after >> PLAYER_BITS
        solved = boxes == self._solved
        reward = 1.0 if solved else 0.0
        if self._first and boxes != before >> PLAYER_BITS:
            reward = self._progress(boxes, solved)
        return StepResult(self._renderer.text(after), reward, solved, solved, True)

    def admissible(self) -> list[str]:
        return [action for action, delta in self._delta.items() if move(self._walls, self.state, delta) != self.state]

    def distance(self) -> int | None:
        """Return the moves left in an optimal plan; None when the room cannot be solved any more.

        None also in large rooms far from solved, where the search reaches its limit (see `board.py`).
        """
        return None if self.task is None else self._distances.of(self.state)

    def expert(self) -> ExpertAction | None:
        first = None if self.task is None else self._distances.best(self.state)
        if first is None:
            return None
        # Follow the plan to its next push: that is what this move is for.
        state, number = self.state, first
        while True:
            delta = self._delta[ACTIONS[number]]
            after = move(self._walls, state, delta)
            if after >> PLAYER_BITS != state >> PLAYER_BITS:
                break
            best = self._distances.best(after)
            assert best is not None  # the plan goes on until a box moves
            state, number = after, best
        stand = state & PLAYER
        place = places(self.room.rows, self.room.columns)
        here = "I stand there" if state == self.state else f"go {ACTIONS[first]} to get there"
        return ExpertAction(
            ACTIONS[first], f"Push box {place[stand + delta]} {ACTIONS[number]} from {place[stand]}; {here}."
        )

    def render(self) -> str:
        """Return the room drawn for a person in a terminal."""
        return "" if self.task is None else self._renderer.picture(self.state)

    def _no_tasks(self, split: str) -> str:
        assert self._collection is not None  # generated levels have rooms of every split
        there = ", ".join(f"{len(rooms)} {name}" for name, rooms in self._collection.rooms.items() if rooms)
        return (
            f"{self._collection.path} has no {split} rooms: a hash of each room decides its split, and its rooms are "
            f"{there}"
        )

    def _goal(self) -> str:
        many = self._solved & (self._solved - 1)
        what = "every box onto a target" if many else "the box onto the target"
        legend = f" Legend: {self._renderer.legend}." if self._renderer.legend else ""
        size = f"{self.room.rows} by {self.room.columns}"
        return f"Push {what} of this {size} room.{legend}"

    def _progress(self, boxes: int, solved: bool) -> float:
        if solved:
            return 1.0 - self._reward_paid
        needed = self._needed(boxes)
        if needed is None or self._fewest is None or not self._first or needed >= self._fewest:
            return 0.0
        reward = (self._fewest - needed) / self._first
        self._fewest = needed
        self._reward_paid += reward
        return reward

    def _needed(self, boxes: int) -> int | None:
        """Return the fewest pushes that bring each box to a target, were it alone; None when one never can be."""
        pushes = [self._distances.pushes.get(cell) for cell in cells(boxes)]
        known = [count for count in pushes if count is not None]
        return sum(known) if len(known) == len(pushes) else None

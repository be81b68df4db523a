"""The ScienceWorld environment: the package's own simulator, driven through its server object.

An action costs four calls: seed, step, score, completion. The seed depends on the task and the turn alone, so that an
episode goes the same way whatever other episodes are played beside it. The stock `ScienceWorldEnv.step` also lists all
valid actions each time, which is where nearly all of its time goes.
"""

from __future__ import annotations

import json
import re
from itertools import groupby
from typing import Any

from gentax.core.env import ExpertAction, StepResult, Task, TextEnv, content_hash
from gentax.core.errors import EnvironmentFault
from gentax.domains.sciworld import DOMAIN, SIMPLIFICATION, Variation, turn_seed, variations
from gentax.domains.sciworld.expert import Plan, Turn, plan_for, thought
from gentax.domains.sciworld.simulator import Simulator

ACTION_LIMIT = 300  # characters of an action that the parser is shown; the longest valid ones have about 100
REFUSALS = ("No known action matches that input.", "Unknown action.")
QUESTION = "Ambiguous request"
FREE = re.compile(r"(look|examine|inventory|task|help|objects|read)\b")  # actions that change nothing a plan rests on
# Answers after which all is as it was.
IDLE = re.compile(r"The .+ is (already|not) |You can't |It's not clear |Ambiguous request")
CARRIED = re.compile(r"put down |(mix|look in|look at) inventory$")  # actions on what is carried, and on all of it
MOVING = re.compile(r"(teleport|go)\b")
# What tells namesakes apart: "a wood cup (containing red paint)", "an inclined plane with a steel surface".
PARTICULARS = re.compile(r" \(| with a ")


class SciWorld(TextEnv):
    """ScienceWorld, simplified (`easy`), on the package's own folds.

    An action is valid unless the simulator says that it knows no such action. Where the simulator asks which of
    several things was meant ("Ambiguous request"), its question is the observation and the action counts as valid;
    the next action is taken for the number, as in the package, and anything else cancels and is refused.
    Success is the package's completion with a score of 100. A wrong focus (score -100) ends the episode as a failure.
    The dense reward is the rise of the package's score, over 100.

    `expert` follows a stored plan (`expert.py`). It stays on it through looking, through actions that do nothing and
    through walking about (it goes back first); any other action that is not the plan's next leaves it without a move.
    Right after a question of the simulator its move is taken for the answer and refused; it repeats it.

    Raises (from `reset` and `step`):
        EnvironmentFault: the Java process died or broke; the next `reset` starts another.
        UsageError: there is no Java that runs.
    """

    domain = DOMAIN

    def __init__(self, level: str | None = None, **settings: Any) -> None:
        super().__init__(level, **settings)
        self._server: Simulator | None = None
        self._score = 0  # the package's, -100 to 100
        self._history: list[Turn] = []
        self._start = ""  # the room the episode begins in
        self._plan: Plan | None = None

    @property
    def variation(self) -> Variation:
        """The package's own name for the present task."""
        assert self.task is not None
        return variations(self.level, self.task.split)[self.task.index]

    def size(self, split: str) -> int:
        return len(variations(self.level, split))

    def _reset_task(self, task: Task) -> tuple[str, str]:
        self._score, self._history, self._plan = 0, [], None
        name, number = self.variation
        calls = ("load", name, number, SIMPLIFICATION, False), ("freeActionLook",), ("getTaskDescription",)
        try:
            complaint, look, goal = self._ask(*calls)
        except EnvironmentFault:  # it never was, was closed, or died since the last episode
            self._server = Simulator()
            complaint, look, goal = self._ask(*calls)
        if complaint:
            raise EnvironmentFault(f"the simulator cannot load {name} {number}: {complaint[:200]}")
        first = tidy(look)
        room = re.search(r"called the (.+?)\.", first)
        self._start = room[1] if room else ""
        return tidy(goal).replace("\n", " "), first

    def _step(self, action: str) -> StepResult:
        action = plain(action)
        seed = turn_seed(self.variation, len(self._history))
        answer, score, completed = self._ask(("step", action), ("getScore",), ("getCompleted",), seed=seed)
        points = max(-100, min(100, round(100 * score)))
        rise, self._score = points - self._score, points
        valid = not answer.startswith(REFUSALS)
        self._history.append(Turn(action, answer))
        success = completed and points == 100
        done = completed or points < 0
        reward = rise / 100 if self.reward == "dense" else float(success)
        return StepResult(tidy(answer), reward, done, success, valid)

    def content(self) -> str:
        return content_hash("sciworld", *self.variation)

    def content_of(self, task: Task) -> str:
        """Return `content` of any task without the simulator."""
        return content_hash("sciworld", *variations(self.level, task.split)[task.index])

    def admissible(self) -> list[str]:
        """Return the package's valid actions on what is within reach, some 100 to 2,700; takes 15 to 90 ms.

        The package lists actions on things in closed cupboards too, and on rooms behind drains, which its parser
        then refuses. Kept are those on things that it can refer to now, or that are carried. Drains and plants in
        their pots, which it would take, go with them: one accepted action in twenty.
        """
        listed, known = self._ask(("getValidActionObjectCombinationsJSON",), ("getPossibleObjectReferentLUTJSON",))
        entries = json.loads(listed)["validActions"]
        near = set(map(int, json.loads(known)))
        near.update(*(entry["obj_ids"] for entry in entries if CARRIED.match(entry["action"])))
        reachable = (e for e in entries if near.issuperset(e["obj_ids"]) or e["action"].startswith("teleport to "))
        return sorted({entry["action"] for entry in reachable})

    def expert(self) -> ExpertAction | None:
        if self.task is None:
            return None
        if self._plan is None:
            self._plan = plan_for(self.variation)
        room, done, strayed, asked = self._start, 0, False, False
        for action, answer in self._history:
            expected = self._plan[done] if done < len(self._plan) else ""
            if answer.startswith(REFUSALS):
                if action == expected and not asked:  # else it was taken for the answer to a question
                    return None
            elif action == expected and (not strayed or action.startswith("teleport to ")):
                strayed = False
                done += 1
                room = action.removeprefix("teleport to ") if action.startswith("teleport to ") else room
            elif MOVING.match(action):
                strayed = action != f"teleport to {room}"
            elif not FREE.match(action) and not IDLE.match(answer):
                return None
            asked = answer.startswith(QUESTION)
        if done >= len(self._plan):
            return None
        if strayed and not self._plan[done].startswith("teleport to "):
            return ExpertAction(f"teleport to {room}", f"I have strayed from the {room}: go back.")
        return ExpertAction(self._plan[done], thought(self.goal, self._plan[done:]))

    def render(self) -> str:
        """Return the goal, the place, what is carried and the score, for a person. Takes no time in the game."""
        if self.task is None:
            return ""
        look, carried = self._ask(("freeActionLook",), ("freeActionInventory",))
        return f"{self.goal}\n\n{tidy(look)}\n\n{tidy(carried)}\n\nScore {self._score} of 100, step {self.steps}"

    def close(self) -> None:
        """Let the simulator go; the last one to close ends the Java process."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _ask(self, *calls: tuple[Any, ...], seed: int | None = None) -> list[Any]:
        if self._server is None:
            raise EnvironmentFault("this environment has no simulator: reset() starts one")
        try:
            return self._server(*calls, seed=seed)
        except EnvironmentFault:
            self.close()
            raise


def tidy(text: str) -> str:
    """Return the simulator's text without its tabs, blank lines and doubled spaces, namesakes in a fixed order.

    The simulator lists things by name; three wood cups of different paints come in an order that differs from one
    loading of a task to the next.
    """
    lines = (" ".join(line.split()) for line in text.split("\n"))
    alike = groupby((line for line in lines if line), key=lambda line: PARTICULARS.split(line, 1)[0])
    return "\n".join(line for _, namesakes in alike for line in sorted(namesakes))


def plain(action: str) -> str:
    """Return any string as one line that can be sent: no control characters or lone surrogates, not too long."""
    action = action[: 4 * ACTION_LIMIT].encode("utf-8", "replace").decode()
    action = "".join(char if char.isprintable() else " " for char in action)
    return " ".join(action.split())[:ACTION_LIMIT]

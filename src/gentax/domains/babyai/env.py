"""The BabyAI environment: the package's own worlds, with words for what is seen and done, and the package's bot as the
expert, told of every step.

The split of a start is decided by a hash of all that it is: the grid as seen from the agent, so that a turned room is
the same, and the mission. No start of one split is ever in the other. Within a split small rooms
repeat: with one thing in 4 by 4 cells there are some 2,000 starts, so that of the first 999 test tasks of level `small`
27 begin as an earlier one does. Rooms with four things or more did not repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import minigrid.envs.babyai as babyai
import numpy as np
from minigrid.core.actions import Actions
from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT, OBJECT_TO_IDX
from minigrid.core.world_object import WorldObj
from minigrid.envs.babyai.core import roomgrid_level
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

from gentax.core.env import ExpertAction, StepResult, Task, TextEnv, content_hash, split_of, stable_seed
from gentax.domains.babyai import DOMAIN, KINDS, TASKS, LevelKind


def _silent(*_: object) -> None:
    """Take the place of `print` in the package's module of levels, which tells of every draft that it throws away.

    Standard output is redirected for no one: it belongs to the whole process, this name to that module alone.
    """


roomgrid_level.print = _silent


def make_world(kind: LevelKind) -> Any:
    """Return one of the package's environments."""
    return getattr(babyai, kind.name)(**kind.settings)


def draw(world: Any, split: str, seed: int) -> Mapping[str, Any]:
    """Start the world that `seed` stands for, the first of its split among those drawn; return what is seen first."""
    for attempt in count():
        seen, _ = world.reset(seed=stable_seed("babyai", seed, attempt))
        if split_of(content_of(world)) == split:
            break
    return seen


def content_of(world: Any) -> str:
    """Return a hash of the present state of a world, the same however it is turned."""
    return content_hash("babyai", whole(world).hex())


def whole(world: Any) -> bytes:
    """Return all of the present state of a world, the same however it is turned."""
    grid = world.grid.encode()
    grid[tuple(world.agent_pos)] = OBJECT_TO_IDX["agent"]
    grid = np.rot90(grid, -(world.agent_dir + 1))  # the agent looks up, as in what it sees
    return f"{grid.shape}{world.mission}".encode() + grid.tobytes()


# What the agent sees, in words: its heading, the things in sight by their place, the wall ahead, what it carries.
#
# Places are counted in cells from the agent: "a red ball 2 ahead 1 left". The nearest comes first. Left out: walls
# but the one straight ahead, and what the agent cannot see, as in the package's own observations.

HEADINGS = ("east", "south", "west", "north")  # of the package's directions 0 to 3
_NOTHING = frozenset(OBJECT_TO_IDX[name] for name in ("unseen", "empty", "floor", "wall", "agent"))
_WALL, _UNSEEN = OBJECT_TO_IDX["wall"], OBJECT_TO_IDX["unseen"]
_DOOR = OBJECT_TO_IDX["door"]
_DOORS = ("an open", "a closed", "a locked")  # by the state of a door


def view(image: Any, heading: int) -> str:
    """Return what is seen in words.

    Args:
        image: the package's observation, columns × rows × (object, colour, state); the agent is in the middle of the
            last row and looks at the first.
        heading: 0 to 3.
    """
    columns = image.tolist()
    middle, last = len(columns) // 2, len(columns[0]) - 1
    found = []
    for column, cells in enumerate(columns):
        for row, (kind, colour, state) in enumerate(cells):
            if kind not in _NOTHING and (row != last or column != middle):
                ahead, right = last - row, column - middle
                found.append((ahead + abs(right), ahead, right, name_of(kind, colour, state)))
    seen = [f"{name} {place(ahead, right)}" for _, ahead, right, name in sorted(found)]
    straight = columns[middle]
    for ahead in range(1, last + 1):
        kind = straight[last - ahead][0]
        if kind == _WALL:
            seen.append(f"a wall {ahead} ahead")
        if kind in (_WALL, _UNSEEN):
            break
    kind, colour, state = straight[last]  # what is carried is shown where the agent is
    carried = "nothing" if kind in _NOTHING else name_of(kind, colour, state)
    shown = f" You see {', '.join(seen)}." if seen else ""
    return f"You face {HEADINGS[heading]}.{shown} You carry {carried}."


def place(ahead: int, right: int) -> str:
    """Return a place in words, for example "2 ahead 1 left"."""
    parts = [f"{abs(ahead)} {'ahead' if ahead > 0 else 'behind'}"] if ahead else []
    parts += [f"{abs(right)} {'right' if right > 0 else 'left'}"] if right else []
    return " ".join(parts)


def name_of(kind: int, colour: int, state: int) -> str:
    """Return a thing in words, from the package's numbers for it."""
    article = _DOORS[state] if kind == _DOOR else "a"
    return f"{article} {IDX_TO_COLOR[colour]} {IDX_TO_OBJECT[kind]}"


def called(thing: Any) -> str:
    """Return one of the package's objects in words, without an article."""
    return f"{thing.color} {thing.type}"


ACTIONS = {
    "turn left": Actions.left,
    "turn right": Actions.right,
    "go forward": Actions.forward,
    "pick up": Actions.pickup,
    "drop": Actions.drop,
    "toggle": Actions.toggle,
    "done": Actions.done,
}
NAMES = {action: name for name, action in ACTIONS.items()}
ACTION_LIMIT = 32  # characters; no longer string is looked at


class BabyAI(TextEnv):
    """Levels of BabyAI: follow an instruction in a grid world of which only what lies ahead is seen.

    Actions are the seven of `ACTIONS`, in any case, with any space around and between their words. One that would
    change nothing never reaches the package: it is answered with the reason and the unchanged view, and is invalid,
    as is a string that is no action. `done` is always such: the package ends an episode by itself on success, and never
    places the agent where an instruction is fulfilled from the start.

    The package has no signal of progress. The dense reward is its own: on success 1 − 0.9·steps/limit with the steps
    that were accepted and the package's limit, else 0.
    """

    domain = DOMAIN

    def __init__(self, level: str | None = None, **settings: Any) -> None:
        super().__init__(level, **settings)
        self._worlds: list[Any] = []  # one for each kind of task of the level
        self._world: Any = None
        self._seen = ""
        self._bot: BotExpert | None = None

    def size(self, split: str) -> int:
        return TASKS

    def _reset_task(self, task: Task) -> tuple[str, str]:
        if not self._worlds:
            self._worlds = [make_world(kind) for kind in KINDS[self.level]]
        self._world = self._worlds[task.index % len(self._worlds)]
        seen = draw(self._world, task.split, task.seed)
        self._seen = view(seen["image"], seen["direction"])
        self._bot = None
        self._content = content_of(self._world)
        mission = self._world.mission
        return f"{mission[:1].upper()}{mission[1:]}.", self._seen

    def _step(self, action: str) -> StepResult:
        known = ACTIONS.get(action)
        if known is None and len(action) <= ACTION_LIMIT:
            known = ACTIONS.get(" ".join(action.split()).lower())
        if known is None:
            return StepResult(f"Unknown action. {self._seen}", 0.0, False, False, False)
        if refusal := self._refusal(known):
            return StepResult(f"{refusal} {self._seen}", 0.0, False, False, False)
        # The horizon is ours, the package's limit is not looked at. It ends these levels on success alone.
        seen, reward, done, _, _ = self._world.step(known)
        self._seen = view(seen["image"], seen["direction"])
        if self._bot is not None and not done:
            self._bot.observe(known)
        reward = max(0.0, float(reward)) if self.reward == "dense" else float(done)
        return StepResult(self._seen, reward, done, done, True)

    def admissible(self) -> list[str]:
        return [name for name, action in ACTIONS.items() if not self._refusal(action)]

    def expert(self) -> ExpertAction | None:
        """Return the move of the package's bot, which is told of every step from the first call on."""
        if self._world is None:
            return None
        if self._bot is None:
            self._bot = BotExpert(self._world)
        if self._bot.move is None:
            return None
        action, thought = self._bot.move
        return None if self._refusal(action) else ExpertAction(NAMES[action], thought)

    def fingerprint(self) -> str:
        """Return the whole start; worlds that look alike at first may differ in what is not in sight."""
        return whole(self._world).hex()

    def render(self) -> str:
        """Return the whole world drawn in signs for a person, with the goal and what is seen."""
        return "" if self._world is None else f"{self.goal}\n\n{self._world.pprint_grid()}\n\n{self._seen}"

    def _refusal(self, action: Actions) -> str:
        """Return why `action` would change nothing; empty when it would."""
        world = self._world
        if action in (Actions.left, Actions.right):
            return ""
        if action == Actions.done:
            return "It is not done yet."
        ahead = world.grid.get(*world.front_pos)
        what = "" if ahead is None else called(ahead) if ahead.type != "wall" else "wall"
        if action == Actions.forward:
            return "" if ahead is None or ahead.can_overlap() else f"The {what} is in the way."
        if action == Actions.pickup:
            if ahead is None or not ahead.can_pickup():
                return "There is nothing to pick up 1 ahead."
            return f"You carry the {called(world.carrying)} already." if world.carrying else ""
        if action == Actions.drop:
            if world.carrying is None:
                return "You carry nothing."
            return "" if ahead is None else f"The {what} is in the way."
        if ahead is None or ahead.type not in ("door", "box"):
            return "There is nothing to toggle 1 ahead."
        locked = ahead.type == "door" and ahead.is_locked
        key = world.carrying
        if locked and not (key is not None and key.type == "key" and key.color == ahead.color):
            return f"The {what} is locked: it takes a {ahead.color} key."
        return ""


_DOING = {Actions.left: "turn left", Actions.right: "turn right", Actions.forward: "go forward"}
# What the bot raises where it has no plan: its assertions, a box that was opened, things that are no longer there.
_LOST = (AssertionError, DisappearedBoxError, AttributeError, IndexError, TypeError)


class BotExpert:
    """The bot in a world, from its present state on. Once the bot has no plan it has none for good."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._bot: BabyAIBot | None = BabyAIBot(world)
        self.move: tuple[Actions, str] | None = None  # what the bot would do now, and why; None where it is lost
        self.observe(None)

    def observe(self, action: Actions | None) -> None:
        """Tell the bot of a step that was made, be it the one it planned or not."""
        if self._bot is None:
            return
        try:
            planned = self._bot.replan(action)
            self.move = planned, self._why(planned)
        except _LOST:
            self._bot = self.move = None

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

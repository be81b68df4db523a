"""The BabyAI environment: the package's own worlds, with words for what is seen and done."""

from __future__ import annotations

from typing import Any

from minigrid.core.actions import Actions

from gentax.core.env import ExpertAction, StepResult, Task, TextEnv
from gentax.domains.babyai import DOMAIN, KINDS, TASKS
from gentax.domains.babyai.expert import BotExpert
from gentax.domains.babyai.world import called, content_of, draw, make_world, view, whole

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
        move = self._bot.move()
        if move is None or self._refusal(move[0]):
            return None
        action, thought = move
        return ExpertAction(NAMES[action], thought)

    def content(self) -> str:
        return self._content

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

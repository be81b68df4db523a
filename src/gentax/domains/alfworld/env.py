"""The ALFWorld environment: games in the packages' engine, generated for a task or the published ones."""

from __future__ import annotations

from typing import Any

from gentax.core.env import ExpertAction, StepResult, Task, TextEnv
from gentax.core.errors import EnvironmentFault
from gentax.domains.alfworld import DOMAIN, LEVELS, OFFICIAL, TASKS, parse_level
from gentax.domains.alfworld.engine import NOTHING, Game
from gentax.domains.alfworld.expert import Expert
from gentax.domains.alfworld.games import Start, draw, fit, progress, read_game, read_official

ACTION_LIMIT = 200  # characters; no longer string is looked at


class AlfWorld(TextEnv):
    """ALFWorld's six kinds of task: find a thing, clean, heat or cool it, put it away, or look at it in light.

    An action is valid if the engine lists it, in any case and with any space around and between its words. Any other is
    answered with the engine's own words, "Nothing happens.", and changes nothing. The goal is the engine's sentence.

    The engine has no signal of progress. The dense reward is the rise of the best share so far of the task's steps
    (see `progress`), which ends at 1 with success.

    Level `official` plays the published games, in the folder that the environment variable ALFWORLD_DATA names when the
    environment is made: `train`, and as `validation` and `test` their valid_seen and valid_unseen.

    Raises:
        UsageError: an unknown level, or data that are not there or not whole.
    """

    domain = DOMAIN

    def __init__(self, level: str | None = None, **settings: Any) -> None:
        super().__init__(level, **settings)
        self._official = read_official() if self.level == OFFICIAL else None
        if self._official is None:
            fit(parse_level(self.level), self.split)
        self._game: Game | None = None
        self._expert: Expert | None = None
        self._best = 0.0

    def level_horizon(self) -> int:
        return LEVELS[self.level].horizon if self.level in LEVELS else parse_level(self.level).horizon

    def size(self, split: str) -> int:
        return TASKS if self._official is None else len(self._official[split])

    def _reset_task(self, task: Task) -> tuple[str, str]:
        self.close()
        start = self._start(task)
        self._wish, self._description, self._content = start.wish, start.description, start.content
        self._game = Game(start.problem)
        self._expert = Expert(self._game, start.wish)
        self._best = progress(self._game.facts, start.wish)
        words = start.wish.words
        return f"{words[:1].upper()}{words[1:]}.", self._game.look()

    def _step(self, action: str) -> StepResult:
        game = self._playing()
        command = " ".join(action.split()).lower() if len(action) <= ACTION_LIMIT else ""
        meaning = game.meaning(command)
        if meaning is None:
            return StepResult(NOTHING, 0.0, False, False, False)
        said = game.do(command)
        self._expert.observe(*meaning)
        best = 1.0 if game.won else max(self._best, progress(game.facts, self._wish))
        reward = best - self._best if self.reward == "dense" else float(game.won)
        self._best = best
        return StepResult(said, reward, game.won, game.won, True)

    def admissible(self) -> list[str]:
        return [] if self._game is None else self._game.commands

    def expert(self) -> ExpertAction | None:
        """Return the next move of one who searches (see `Expert`)."""
        return None if self._game is None or self._game.won else self._expert.next()

    def content(self) -> str:
        return self._content

    def content_of(self, task: Task) -> str:
        """Return `content` of any task without its game, which takes the engine long to make."""
        return self._start(task).content

    def fingerprint(self) -> str:
        """Return the whole start in words; most of it is not in sight at first."""
        return self._description

    def render(self) -> str:
        """Return the goal, what the engine says last, and what can be done, for a person."""
        if self._game is None:
            return ""
        return f"{self.goal}\n\n{self.observation}\n\n{', '.join(self.admissible())}"

    def close(self) -> None:
        """Let the game go, and free what the planner's library holds of it."""
        if self._game is not None:
            self._game.close()
            self._game = self._expert = None

    def _playing(self) -> Game:
        if self._game is None:
            raise EnvironmentFault("this environment was closed: reset() starts a game")
        return self._game

    def _start(self, task: Task) -> Start:
        if self._official is not None:
            return read_game(self._official[task.split][task.index])
        return draw(parse_level(task.level), task.split, task.index, task.seed)

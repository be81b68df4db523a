"""The ALFWorld environment: games in the packages' engine, generated for a task or the published ones; its expert."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from gentax.core.env import ExpertAction, StepResult, Task, TextEnv
from gentax.core.errors import EnvironmentFault
from gentax.domains.alfworld import DOMAIN, LEVELS, OFFICIAL, TASKS, parse_level
from gentax.domains.alfworld.engine import NOTHING, Arguments, Game
from gentax.domains.alfworld.games import (
    CHANGED,
    GameGoal,
    Start,
    draw,
    fit,
    objects_of_kind,
    progress,
    read_game,
    read_official,
    receptacles_of_kind,
)
from gentax.domains.alfworld.homes import LAMP_PLACES, STATIONS

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
        self._expert: AlfWorldExpert | None = None
        self._best = 0.0

    def level_horizon(self) -> int:
        return LEVELS[self.level].horizon if self.level in LEVELS else parse_level(self.level).horizon

    def size(self, split: str) -> int:
        return TASKS if self._official is None else len(self._official[split])

    def _reset_task(self, task: Task) -> tuple[str, str]:
        self.close()
        start = self._start(task)
        self._asked, self._description, self._content = start.goal, start.description, start.content
        self._game = Game(start.problem)
        self._expert = AlfWorldExpert(self._game, start.goal)
        self._best = progress(self._game.facts, start.goal)
        words = start.goal.words
        return f"{words[:1].upper()}{words[1:]}.", self._game.look()

    def _step(self, action: str) -> StepResult:
        game = self._game
        if game is None:
            raise EnvironmentFault("this environment was closed: reset() starts a game")
        command = " ".join(action.split()).lower() if len(action) <= ACTION_LIMIT else ""
        meaning = game.meaning(command)
        if meaning is None:
            return StepResult(NOTHING, 0.0, False, False, False)
        said = game.do(command)
        self._expert.observe(*meaning)
        best = 1.0 if game.won else max(self._best, progress(game.facts, self._asked))
        reward = best - self._best if self.reward == "dense" else float(game.won)
        self._best = best
        return StepResult(said, reward, game.won, game.won, True)

    def admissible(self) -> list[str]:
        return [] if self._game is None else self._game.commands

    def expert(self) -> ExpertAction | None:
        """Return the next move of one who searches (see `AlfWorldExpert`)."""
        return None if self._game is None or self._game.won else self._expert.next()

    def content_of(self, task: Task) -> str:
        """Return `content` of any task without its game, which takes the engine long to make."""
        return self._start(task).content

    def fingerprint(self) -> str:
        """Return the whole start in words; most of it is not in sight at first."""
        return self._description

    def render(self) -> str:
        """Return the goal, what the engine says last, and what can be done, for a person."""
        shown = f"{self.goal}\n\n{self.observation}\n\n{', '.join(self.admissible())}"
        return "" if self._game is None else shown

    def close(self) -> None:
        """Let the game go, and free what the planner's library holds of it."""
        if self._game is not None:
            self._game.close()
            self._game = self._expert = None

    def _start(self, task: Task) -> Start:
        if self._official is not None:
            return read_game(self._official[task.split][task.index])
        return draw(parse_level(task.level), task.split, task.index, task.seed)


AGENT = "agent1"
_SHOWING = ("gotolocation", "openobject", "examinereceptacle")  # actions that tell what is in a receptacle


class AlfWorldExpert:
    """Looks where the thing may be, one place after the other, and then does what is asked with it.

    It knows no more than the player: what it has seen, and what a kind of receptacle can hold. So a policy that
    imitates it learns to search. It goes on from any state of the game.
    """

    def __init__(self, game: Game, goal: GameGoal) -> None:
        self._game, self._facts, self._goal = game, game.facts, goal
        self._seen: set[str] = set()  # receptacles whose contents were told
        self._places = [place for place, _ in self._facts.all("receptacletype")]

    def observe(self, action: str, arguments: Arguments) -> None:
        """Take note of an action that was done: its name in the rules and its arguments."""
        if action in _SHOWING and not self._closed(arguments[-1]):
            self._seen.add(arguments[-1])

    def next(self) -> ExpertAction | None:
        """Return the next move; None where there is nothing left to look into."""
        wanted = objects_of_kind(self._facts, self._goal.thing)
        held = self._facts.value("holds", AGENT)
        if held is None:
            return self._fetch(wanted)
        if held not in wanted:
            return self._rid(held)
        if self._goal.kind == "light":
            return self._light()
        changed = CHANGED.get(self._goal.kind)
        if changed and not self._facts.holds(changed, held):
            return self._change(held)
        return self._store(held, self._destination(wanted))

    # What there is to do.

    def _fetch(self, wanted: list[str]) -> ExpertAction | None:
        """Take a thing that is not yet where it should be, or look for one."""
        done = self._destination(wanted) if self._goal.kind == "two" else None
        for thing in wanted:
            place = self._facts.value("inreceptacle", thing)
            if place is not None and place in self._seen and place != done:
                name, where = self._called(thing), self._called(place)
                take = ExpertAction(f"take {name} from {where}", f"The {name} is here: take it.")
                return self._at(place, f"The {name} is in the {where}", take)
        kinds = self._facts.having("cancontain", f"{self._goal.thing}type")
        return self._search(self._goal.thing, {*kinds} - {f"{self._goal.to}type"})

    def _light(self) -> ExpertAction | None:
        """Go to the lamp and turn it on, or look for it."""
        for lamp in objects_of_kind(self._facts, self._goal.lamp):
            place = self._facts.value("inreceptacle", lamp)
            if place in self._seen:
                name = self._called(lamp)
                use = ExpertAction(f"use {name}", f"The {name} is here: use it.")
                return self._at(place, f"The {name} is on the {self._called(place)}", use, opened=False)
        return self._search(self._goal.lamp, {f"{kind.lower()}type" for kind in LAMP_PLACES})

    def _change(self, held: str) -> ExpertAction | None:
        """Clean, heat or cool what is held."""
        verb = self._goal.kind
        place = next(iter(receptacles_of_kind(self._facts, STATIONS[verb][1].lower())), None)
        if place is None:
            return None
        name, where = self._called(held), self._called(place)
        change = ExpertAction(f"{verb} {name} with {where}", f"The {where} is here: {verb} the {name}.")
        return self._at(place, f"I have to {verb} the {name} with the {where}", change, opened=False)

    def _store(self, held: str, place: str | None) -> ExpertAction | None:
        """Put what is held where it belongs."""
        if place is None:
            return None
        name, where = self._called(held), self._called(place)
        put = ExpertAction(f"move {name} to {where}", f"The {where} is here: put the {name} there.")
        return self._at(place, f"The {name} belongs in the {where}", put)

    def _rid(self, held: str) -> ExpertAction | None:
        """Put down what is not needed, here if there is a place for it."""
        name = self._called(held)
        for command in self._game.commands:
            if command.startswith(f"move {name} to "):
                return ExpertAction(command, f"I do not need the {name}: put it down.")
        kinds = self._facts.having("cancontain", self._facts.value("objecttype", held))
        for place in self._of_kinds(kinds):
            where = self._called(place)
            put = ExpertAction(f"move {name} to {where}", f"I do not need the {name}: put it down.")
            return self._at(place, f"The {name} is not needed and fits the {where}", put)
        return None

    def _search(self, what: str, likely: Collection[str]) -> ExpertAction | None:
        """Look into the next place: first where such a thing may be, in the order of the engine's list."""
        first = self._of_kinds(likely)
        for place in (*first, *(place for place in self._places if place not in first)):
            if place not in self._seen:
                name = self._called(place)
                look = ExpertAction(f"examine {name}", f"I am at the {name} too: look for the {what}.")
                return self._at(place, f"The {what} may be in the {name}", look)
        return None

    # What is known.

    def _at(self, place: str, reason: str, then: ExpertAction, opened: bool = True) -> ExpertAction:
        """Return the move that leads to `place`, or opens it, or `then` where that is done."""
        name = self._called(place)
        if self._facts.value("receptacleatlocation", place) != self._facts.value("atlocation", AGENT):
            return ExpertAction(f"go to {name}", f"{reason}: go there.")
        if opened and self._closed(place):
            return ExpertAction(f"open {name}", f"The {name} is closed: open it.")
        return then

    def _destination(self, wanted: Iterable[str]) -> str | None:
        """Return the place to put things in: of the right kind, and where most of them are already."""
        there = [self._facts.value("inreceptacle", thing) for thing in wanted]
        return max(receptacles_of_kind(self._facts, self._goal.to), key=there.count, default=None)

    def _of_kinds(self, types: Collection[str]) -> list[str]:
        return [place for place, type_ in self._facts.all("receptacletype") if type_ in types]

    def _closed(self, place: str) -> bool:
        return self._facts.holds("openable", place) and not self._facts.holds("opened", place)

    def _called(self, id: str) -> str:
        return self._game.names[id]

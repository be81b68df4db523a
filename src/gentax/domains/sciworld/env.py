"""The ScienceWorld environment: the package's own simulator, driven through its server object.

An action costs four calls: seed, step, score, completion. The seed depends on the task and the turn alone, so that an
episode goes the same way whatever other episodes are played beside it. The stock `ScienceWorldEnv.step` also lists all
valid actions each time, which is where nearly all of its time goes.

The expert follows stored plans, which are made from the package's gold paths.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from gentax.core.env import ExpertAction, StepResult, Task, content_hash
from gentax.core.errors import EnvironmentFault
from gentax.core.files import write_json
from gentax.domains.java import JvmEnv
from gentax.domains.sciworld import DEFAULT, DOMAIN, SIMPLIFICATION, Variation, names_of, turn_seed, variations
from gentax.domains.sciworld.simulator import SPLIT_METHODS, Simulator, read_folds

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


class SciWorld(JvmEnv):
    """ScienceWorld, simplified (`easy`), on the package's own folds.

    An action is valid unless the simulator says that it knows no such action. Where the simulator asks which of
    several things was meant ("Ambiguous request"), its question is the observation and the action counts as valid;
    the next action is taken for the number, as in the package, and anything else cancels and is refused.
    Success is the package's completion with a score of 100. A wrong focus (score -100) ends the episode as a failure.
    The dense reward is the rise of the package's score, over 100.

    `expert` follows a stored plan (`expert.py`). It stays on it through looking, through actions that do nothing and
    through walking about (it goes back first); any other action that is not the plan's next leaves it without a move.
    Right after a question of the simulator its move is taken for the answer and refused; it repeats it.
    """

    domain = DOMAIN
    simulator = Simulator

    def __init__(self, level: str | None = None, **settings: Any) -> None:
        super().__init__(level, **settings)
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
        self._content = self.content_of(task)
        calls = ("load", name, number, SIMPLIFICATION, False), ("freeActionLook",), ("getTaskDescription",)
        complaint, look, goal = self._start_episode(lambda simulator: simulator(*calls))
        if complaint:
            raise EnvironmentFault(f"the simulator cannot load {name} {number}: {complaint[:200]}")
        first = tidy(look)
        room = re.search(r"called the (.+?)\.", first)
        self._start = room[1] if room else ""
        return tidy(goal).replace("\n", " "), first

    def _step(self, action: str) -> StepResult:
        action = plain(action)
        seed = turn_seed(self.variation, len(self._history))
        answer, score, completed = self._running()(("step", action), ("getScore",), ("getCompleted",), seed=seed)
        points = max(-100, min(100, round(100 * score)))
        rise, self._score = points - self._score, points
        valid = not answer.startswith(REFUSALS)
        self._history.append(Turn(action, answer))
        success = completed and points == 100
        done = completed or points < 0
        reward = rise / 100 if self.reward == "dense" else float(success)
        return StepResult(tidy(answer), reward, done, success, valid)

    def content_of(self, task: Task) -> str:
        """Return `content` of any task without the simulator."""
        return content_hash("sciworld", *variations(self.level, task.split)[task.index])

    def admissible(self) -> list[str]:
        """Return the package's valid actions on what is within reach, some 100 to 2,700; takes 15 to 90 ms.

        The package lists actions on things in closed cupboards too, and on rooms behind drains, which its parser
        then refuses. Kept are those on things that it can refer to now, or that are carried. Drains and plants in
        their pots, which it would take, go with them: one accepted action in twenty.
        """
        listed, known = self._running()(
            ("getValidActionObjectCombinationsJSON",), ("getPossibleObjectReferentLUTJSON",)
        )
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
        look, carried = self._running()(("freeActionLook",), ("freeActionInventory",))
        return f"{self.goal}\n\n{tidy(look)}\n\n{tidy(carried)}\n\nScore {self._score} of 100, step {self.steps}"


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


# The expert: stored plans made from the package's gold paths.

Plan = tuple[str, ...]  # actions; empty when no plan is known


def plan_for(variation: Variation) -> Plan:
    """Return the plan of a variation: shipped, kept, or made now (seconds) and kept."""
    shipped = _shipped().get(variation.name, {}).get(str(variation.number))
    return kept_plan(variation) if shipped is None else tuple(shipped)


def kept_plan(variation: Variation) -> Plan:
    """Return the plan of a variation from the cache; make it and keep it there when it is not."""
    path = cache_folder() / variation.name / f"{variation.number}.json"
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # not there, or cut short by somebody else: made again
        pass
    server = Simulator()
    try:
        plan = make_plan(server, variation)
    finally:
        server.close()
    with suppress(OSError):  # with nowhere to keep it, it is made again next time
        write_json(path, plan)
    return plan


def cache_folder() -> Path:
    """Return where plans of this version of the package are kept."""
    root = Path(os.environ.get("GENTAX_CACHE") or Path.home() / ".cache" / "gentax")
    return root / "sciworld" / f"plans-{version('scienceworld')}-{SIMPLIFICATION}"


def make_plan(server: Simulator, variation: Variation) -> Plan:
    """Have the package make its gold path and return the shortest form of it that solves the variation."""
    load = ("load", variation.name, variation.number, SIMPLIFICATION, True)
    path = [action.strip() for action in server(load, ("getGoldActionSequence",))[1]]
    played = play(server, variation, path)
    if played is None:
        return ()
    walked = shorten(played)
    plain = [action for action, _ in played]
    for candidate in (rename(played, walked), walked, plain):
        again = play(server, variation, candidate)
        if again is not None:
            return tuple(action for action, _ in again)
    return ()


class Turn(NamedTuple):
    """One action of a path and what the simulator said."""

    action: str
    answer: str


def play(server: Simulator, variation: Variation, actions: Sequence[str]) -> list[Turn] | None:
    """Play `actions` from the start; return them up to success, or None when they fail."""
    server(("load", variation.name, variation.number, SIMPLIFICATION, False))
    played = []
    for turn, action in enumerate(actions):
        calls = ("step", action), ("getScore",), ("getCompleted",)
        answer, score, completed = server(*calls, seed=turn_seed(variation, turn))
        played.append(Turn(action, answer))
        if score < 0:
            return None
        if completed:
            return played if score > 0.995 else None
    return None


_GO = re.compile(r"go (?:to )?(.+)")


def shorten(played: Iterable[Turn]) -> list[str]:
    """Drop what changes nothing, teleport where the path walks, and look before something is named."""
    short: list[str] = []
    seen = True  # the place as it now is; the first observation shows it
    for action, answer in played:
        if answer == "The door is already open.":
            continue
        if action == "look around":
            if not seen:
                short.append(action)
            seen = True
            continue
        moved = re.match(r"You move to the (.+?)\.$", answer)
        if moved and _GO.match(action):
            if short and short[-1].startswith("teleport to "):
                short.pop()
            short.append(f"teleport to {moved[1]}")
            seen = False
        else:
            if not seen and action.startswith("focus on "):
                short.append("look around")  # a name has to be seen before it can be said
                seen = True
            short.append(action)
    return short


def rename(played: Iterable[Turn], short: Sequence[str]) -> list[str]:
    """Name what is focused on and carried as the simulator named it, so that the name stands in an observation."""
    names: dict[str, str] = {}  # how the path calls a thing → how the simulator does
    for action, answer in played:
        focus = re.match(r"You focus on the (.+)\.$", answer)
        if focus and action.startswith("focus on "):
            called = action.removeprefix("focus on ")
            # Before a first turn has passed, the simulator has no name for a plant but that; it shows the right one.
            names[called] = called.removeprefix("adult ") if focus[1] == "plant" else focus[1]
    renamed = []
    carried = ""
    for action in short:
        if action.startswith("focus on "):
            called = action.removeprefix("focus on ")
            action = f"focus on {names.get(called, called)}"
        elif action.startswith("pick up "):
            called = action.removeprefix("pick up ")
            carried = names.get(called, called)
            action = f"pick up {carried}"
        elif moved := re.match(r"move (.+?)( in inventory)? to (.+)$", action):
            thing = re.sub(r" (?:containing|in) .*", "", moved[1])
            known = [name for name in names.values() if f" {name} " in f" {thing} "]
            thing = known[0] if known else carried if moved[2] and carried else names.get(thing, thing)
            action = f"move {thing} to {moved[3]}"
        renamed.append(action)
    return renamed


@cache
def _shipped() -> Mapping[str, Mapping[str, Sequence[str]]]:
    resource = files(__package__) / "gold.json"
    if not resource.is_file():
        return {}
    stored = json.loads(resource.read_text(encoding="utf-8"))
    return stored["plans"] if stored["simplification"] == SIMPLIFICATION else {}


def build_data(folder: Path = Path(__file__).parent) -> None:
    """Make the data files of this package again: its folds, and the plans of the default level. Takes minutes."""
    server = Simulator()  # held to the end, so that the JVM is started once
    write_json(folder / "folds.json", {"scienceworld": version("scienceworld"), "folds": read_folds(server)})
    plans: dict[str, dict[int, tuple[str, ...]]] = {name: {} for name in names_of(DEFAULT)}
    for split in SPLIT_METHODS:
        for variation in variations(DEFAULT, split):
            plans[variation.name][variation.number] = kept_plan(variation)
    gold = {"scienceworld": version("scienceworld"), "simplification": SIMPLIFICATION, "plans": plans}
    write_json(folder / "gold.json", gold)


# Why the expert does what it does, in a short sentence made from the goal and the rest of the plan.


def thought(goal: str, rest: Sequence[str]) -> str:
    """Return why `rest[0]` is next, in about a dozen words, given the goal and the plan from there on."""
    action, later = rest[0], rest[1:]
    verb = action.split(" ", 1)[0]
    sought = re.search(r"find a\(n\) (.+?)\.", goal)
    life = re.search(r"(longest|shortest) life span", goal)
    if verb == "teleport":
        return _teleport(action.removeprefix("teleport to "), later, sought[1] if sought else "", bool(life))
    if action == "look around":
        return "I have to see what is here."
    if verb == "focus":
        name = action.removeprefix("focus on ")
        if sought:
            return f"The {name} is {_a(sought[1])}: focus on it."
        if life:
            return f"Of the animals here the {name} has the {life[1]} life: focus on it."
        return f"The goal asks for the {name}: focus on it."
    if verb == "pick":
        places = (parts[1] for action in later if (parts := re.match(r"move .+ to (.+)$", action)))
        place = next(places, "")
        return f"Take it along to the {place}." if place else "I will need it: take it."
    if verb == "move" and (parts := re.match(r"move (.+) to (.+)$", action)):
        return f"Now put the {parts[1]} in the {parts[2]}." if "box" in parts[2] else f"It belongs in the {parts[2]}."
    if verb == "use" and (parts := re.match(r"use (.+?)(?: in inventory)? on (.+?)(?: in inventory)?$", action)):
        return f"Use the {parts[1]} to learn about the {parts[2]}."
    if action.startswith("wait"):
        return "This takes time: wait."
    return f"To get on I have to {action}."


def _teleport(room: str, later: Sequence[str], sought: str, life: bool) -> str:
    where = "outside" if room == "outside" else f"in the {room}"
    stay = list(takewhile(lambda action: not action.startswith("teleport to "), later))
    if any(action.startswith("focus on ") for action in stay):
        if sought:
            return f"I may find {_a(sought)} {where}: go there."
        if life:
            return f"The animals are {where}: go there."
    for action in stay:
        if parts := re.match(r"move (.+) to (.+)$", action):
            return f"The {parts[2]} is {where}: go there."
        if action.startswith(("pick up ", "use ", "activate ", "focus on ", "read ", "open ")):
            thing = re.sub(r"^(pick up|use|activate|focus on|read|open) | in inventory.*| on .*", "", action)
            return f"I need the {thing} {where}: go there."
    return f"The next thing to do is {where}: go there."


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1] in "aeiou" else f"a {noun}"

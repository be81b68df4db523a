"""A sound environment, and ones that are broken in one way each. `BROKEN` says which check must find it."""

from __future__ import annotations

import atexit
import itertools
import os
import subprocess
import sys
from typing import Any

from gentax.core import SPLITS, Domain, ExpertAction, Level, StepResult, Task, TextEnv, content_hash

RECORD = Domain(
    name="sound",
    entry="broken_envs:Sound",
    about="Say the numbers down to one.",
    rules="Say the number that you see, in words such as `say 12`.",
    levels={"short": Level(6, "two or three numbers")},
    default_level="short",
    licence="Apache-2.0",
    origin="the tests",
)


class Sound(TextEnv):
    """Shows a number; saying two or three of them in turn solves the task. Keeps everything it promises."""

    domain = RECORD

    def _reset_task(self, task: Task) -> tuple[str, str]:
        self.left = self.turns = 2 + task.index % 2
        self.first = self.number = 2 * task.index + 10_000 * SPLITS.index(task.split) + 1000
        return f"Say {self.turns} numbers.", f"You see {self.number}."

    def _step(self, action: str) -> StepResult:
        if action != f"say {self.number}":
            return StepResult(f"No. You see {self.number}.", 0.0, False, False, False)
        self.left -= 1
        self.number += 1
        won = self.left == 0
        reward = 1 / self.turns if self.reward == "dense" else float(won)
        return StepResult(f"Yes. You see {self.number}.", reward, won, won, True)

    def admissible(self) -> list[str] | None:
        return [f"say {self.number}"]

    def expert(self) -> ExpertAction | None:
        return ExpertAction(f"say {self.number}", f"It shows {self.number}.")

    def content(self) -> str | None:
        return content_hash("sound", self.first)

    def size(self, split: str) -> int:
        return 300


class Silent(Sound):
    """Says neither what is admissible, what an expert does nor what tasks are made of: nothing wrong with that."""

    def admissible(self):
        return None

    def expert(self):
        return None

    def content(self):
        return None


class Twins(Sound):
    """Tasks of both splits begin alike and then differ: nothing wrong with that either."""

    def _reset_task(self, task):
        goal, _ = super()._reset_task(task)
        return goal, "You see a number."

    def _step(self, action):
        return super()._step(f"say {self.number}" if action == "say it" else action)

    def admissible(self):
        return ["say it"] if self.left == self.turns else super().admissible()

    def expert(self):
        return ExpertAction("say it", "I shall see it.") if self.left == self.turns else super().expert()


class SaysGoodbye(Sound):
    """Prints when it is closed and when Python ends: nothing wrong with that either."""

    def close(self):
        print("Goodbye.")
        atexit.register(print, "\n ")


_counter = itertools.count()


class StartsByHistory(Sound):
    def _reset_task(self, task):
        goal, first = super()._reset_task(task)
        self.resets = getattr(self, "resets", 0) + 1
        return goal, first if self.resets < 3 else f"Again: {first}"


class StartsByInstance(Sound):
    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.number_of_instance = next(_counter)

    def _reset_task(self, task):
        goal, first = super()._reset_task(task)
        return goal, f"{first} This is world {self.number_of_instance}."


class AnswersByChance(Sound):
    def _step(self, action):
        result = super()._step(action)
        return result._replace(observation=f"{result.observation} {next(_counter)} birds fly by.")


class StartsByHash(Sound):
    def _reset_task(self, task):
        goal, first = super()._reset_task(task)
        return goal, f"{first} Its colour is {hash(task.id) % 1000}."


class SharesContents(Sound):
    def content(self):
        return content_hash("sound", self.task.index) if self.task.index == 7 else super().content()


class SaysContentsNowAndThen(Sound):
    def content(self):
        return None if self.task.index == 7 else super().content()


class SharesTasks(Sound):
    def _reset_task(self, task):
        return super()._reset_task(Task(task.domain, task.level, "train", task.index))


class SharesOneTask(Sound):
    def _reset_task(self, task):
        odd = task.split == "test" and task.index == 20
        return super()._reset_task(Task(task.domain, task.level, "train", 10) if odd else task)


class ExpertLoses(Sound):
    def expert(self):
        return ExpertAction("say 0", "Zero.") if self.task.index == 3 else super().expert()


class ExpertGivesUp(Sound):
    def expert(self):
        return None if self.task.index == 3 and self.left == 1 else super().expert()


class ExpertIsSlow(Sound):
    def admissible(self):
        return [*super().admissible(), "wait"]

    def _step(self, action):
        if action == "wait":
            return StepResult("You wait.", 0.0, False, False, True)
        return super()._step(action)

    def expert(self):
        return ExpertAction("wait", "Why not.") if self.task.index == 3 else super().expert()


class ExpertThinksNothing(Sound):
    def expert(self):
        return ExpertAction(super().expert().action, " ")


class PaysHalf(Sound):
    def _step(self, action):
        result = super()._step(action)
        return result._replace(reward=0.5 * result.reward)


class PaysTooMuch(Sound):
    def _step(self, action):
        result = super()._step(action)
        return result._replace(reward=1.0) if result.valid and self.reward == "dense" else result


class PaysNoNumber(Sound):
    def _step(self, action):
        result = super()._step(action)
        return result._replace(reward=float("nan")) if self.reward == "dense" else result


class WinsAndGoesOn(Sound):
    def _step(self, action):
        return super()._step(action)._replace(terminated=False)


class ListsWhatItRefuses(Sound):
    def admissible(self):
        return [*super().admissible(), "jump"]


class TakesNonsense(Sound):
    def _step(self, action):
        return super()._step(action)._replace(valid=True)


class IsHarmedByRefusals(Sound):
    def _step(self, action):
        if action != f"say {self.number}":
            self.left = 1000
        return super()._step(action)


class ShowsControlCharacters(Sound):
    def _step(self, action):
        result = super()._step(action)
        return result._replace(observation=result.observation + "\x1b[2J")


class ShowsSurrogates(Sound):
    def _reset_task(self, task):
        goal, first = super()._reset_task(task)
        return goal + "\ud800", first


class ShowsTooMuch(Sound):
    def _step(self, action):
        result = super()._step(action)
        return result._replace(observation=result.observation * 2000) if result.valid else result


class RaisesOnSurrogates(Sound):
    def _step(self, action):
        action.encode()
        return super()._step(action)


class Echoes(Sound):
    def _step(self, action):
        result = super()._step(action)
        return result if result.valid else result._replace(observation=f"What is {action}?")


# Conventions.


class IgnoresTheSeed(Sound):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=None if seed is None else next(_counter), options=options)


class DoesNotSayValid(Sound):
    def step(self, action):
        *answer, info = super().step(action)
        return (*answer, {"success": info["success"]})


class ReturnsFour(Sound):
    def step(self, action):
        return super().step(action)[:4]


class ClosesOnce(Sound):
    def close(self):
        del self.domain_open

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.domain_open = True


# What is held.

_kept: list[Any] = []


class LeavesAProcess(Sound):
    def _reset_task(self, task):
        if not hasattr(self, "process"):
            self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            _kept.append(self.process)
        return super()._reset_task(task)


class IsClosedByItsEnd(Sound):
    """Gives its file back when it is collected, but not when it is closed."""

    def _reset_task(self, task):
        if not hasattr(self, "file"):
            self.file = open(os.devnull)  # noqa: SIM115
        return super()._reset_task(task)


class RaisesInTheMiddle(Sound):
    def _step(self, action):
        if self.task.index == 2 and self.left == 1:
            raise KeyError("lost")
        return super()._step(action)


BROKEN: list[tuple[type[Sound], str, str]] = [  # what is broken, the check that finds it, what it says
    (StartsByHistory, "same episode", "after another task"),
    (StartsByInstance, "same episode", "in a second environment"),
    (AnswersByChance, "same episode", "step 1: the observation differs"),
    (StartsByHash, "other process", "in another process"),
    (SharesContents, "contents", "are made of the same"),
    (SaysContentsNowAndThen, "contents", "/7: it says nothing of what this task is made of"),
    (SharesTasks, "disjoint splits", "are the same task"),
    (SharesOneTask, "disjoint splits", "train/10 and"),
    (ExpertLoses, "expert", "train/3, step 1: the environment refuses the expert's action"),
    (ExpertGivesUp, "expert", "train/3, step 3: the expert has no move"),
    (ExpertIsSlow, "expert", "the horizon after 6 steps"),
    (ExpertThinksNothing, "expert", "thought"),
    (PaysHalf, "rewards", "the sparse reward is 0.5"),
    (PaysTooMuch, "rewards", "sum to 2"),
    (PaysNoNumber, "rewards", "nan"),
    (WinsAndGoesOn, "rewards", "goes on"),
    (ListsWhatItRefuses, "admissible", "'jump' is refused"),
    (TakesNonsense, "admissible", "is accepted"),
    (IsHarmedByRefusals, "admissible", "does not win any more"),
    (ShowsControlCharacters, "texts", "U+001B"),
    (ShowsSurrogates, "texts", "U+D800"),
    (ShowsTooMuch, "texts", "more than 20000"),
    (RaisesOnSurrogates, "any string", "lone surrogates as an action raises UnicodeEncodeError"),
    (Echoes, "any string", "a megabyte as an action"),
    (IgnoresTheSeed, "interface", "reset(seed=7): it draws"),
    (DoesNotSayValid, "interface", "info['valid']"),
    (ReturnsFour, "interface", "five values"),
    (ClosesOnce, "interface", "AttributeError"),
    (LeavesAProcess, "close", "1 more processes"),
    (IsClosedByItsEnd, "close", "1 more files"),
    (RaisesInTheMiddle, "expert", "step 2: raises KeyError"),
]

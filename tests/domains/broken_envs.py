"""A sound environment, and ones that are broken in one way each. `BROKEN` says which check must find it."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import threading
import time
from typing import Any

from gentax.core import SPLITS, Domain, ExpertAction, Level, StepResult, Task, TextEnv, UsageError, content_hash

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


_counter = itertools.count()


class StartsByHistory(Sound):
    def _reset_task(self, task):
        goal, first = super()._reset_task(task)
        self.begun = getattr(self, "begun", 0) + 1
        return goal, first if self.begun < 3 else f"Again: {first}"


class StartsByInstance(Sound):
    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.mine = next(_counter)

    def _reset_task(self, task):
        goal, first = super()._reset_task(task)
        return goal, f"{first} This is world {self.mine}."


class AnswersByChance(Sound):
    def _step(self, action):
        acted = super()._step(action)
        return acted._replace(observation=f"{acted.observation} {next(_counter)} birds fly by.")


class PaysByChance(Sound):
    def _step(self, action):
        acted = super()._step(action)
        return acted._replace(reward=acted.reward * (1 + next(_counter)))


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


class SharesTasksSilently(SharesTasks, Silent):
    pass


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
        acted = super()._step(action)
        return acted._replace(reward=0.5 * acted.reward)


class PaysForNothing(Sound):
    def _step(self, action):
        acted = super()._step(action)
        return acted if acted.valid or self.reward == "dense" else acted._replace(reward=1.0)


class PaysTooMuch(Sound):
    def _step(self, action):
        acted = super()._step(action)
        return acted._replace(reward=1.0) if acted.valid and self.reward == "dense" else acted


class PaysNoNumber(Sound):
    def _step(self, action):
        acted = super()._step(action)
        return acted._replace(reward=float("nan")) if self.reward == "dense" else acted


class WinsAndGoesOn(Sound):
    def _step(self, action):
        return super()._step(action)._replace(terminated=False)


class ListsWhatItRefuses(Sound):
    def admissible(self):
        return [*super().admissible(), "jump"]


class ListsTwice(Sound):
    def admissible(self):
        return super().admissible() * 2


class TakesNonsense(Sound):
    def _step(self, action):
        return super()._step(action)._replace(valid=True)


class IsHarmedByRefusals(Sound):
    def _step(self, action):
        if action != f"say {self.number}":
            self.left = 1000
        return super()._step(action)


class IsEndedByRefusals(Sound):
    def _step(self, action):
        acted = super()._step(action)
        return acted if acted.valid else acted._replace(terminated=True)


class ShowsControlCharacters(Sound):
    def _step(self, action):
        acted = super()._step(action)
        return acted._replace(observation=acted.observation + "\x1b[2J")


class ShowsSurrogates(Sound):
    def _reset_task(self, task):
        goal, first = super()._reset_task(task)
        return goal + "\ud800", first


class ShowsTooMuch(Sound):
    def _step(self, action):
        acted = super()._step(action)
        return acted._replace(observation=acted.observation * 2000) if acted.valid else acted


class ShowsNothing(Sound):
    def _step(self, action):
        acted = super()._step(action)
        return acted._replace(observation="") if acted.success else acted


class HasNoGoal(Sound):
    def _reset_task(self, task):
        return "", super()._reset_task(task)[1]


class RaisesOnSurrogates(Sound):
    def _step(self, action):
        action.encode()
        return super()._step(action)


class RaisesOnFormats(Sound):
    def _step(self, action):
        return super()._step(action.format())


class Echoes(Sound):
    def _step(self, action):
        acted = super()._step(action)
        return acted if acted.valid else acted._replace(observation=f"What is {action}?")


class IsSpoiledByStrings(Sound):
    spoiled = False

    def _step(self, action):
        self.spoiled = self.spoiled or "\0" in action
        return super()._step("" if self.spoiled else action)


# Conventions.


class StepsBeforeReset(Sound):
    def _reset_task(self, task):
        self.begun = True
        return super()._reset_task(task)

    def step(self, action):
        if not hasattr(self, "begun"):
            return "", 0.0, False, False, {}
        return super().step(action)


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


class IsCutOffLate(Sound):
    def __init__(self, level=None, split="train", reward="sparse", horizon=None):
        super().__init__(level, split, reward, None if horizon is None else horizon + 1)


class IsCutOffThoughItEnds(Sound):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated or self.steps >= self.horizon, info


class StepsAfterTheEnd(Sound):
    def step(self, action):
        if self._over and self.steps:
            return self.observation, 0.0, True, False, {"valid": False, "success": False}
        return super().step(action)


class TakesAnyLevel(Sound):
    def __init__(self, level=None, **settings):
        super().__init__(None, **settings)


class TakesAnyIndex(Sound):
    def reset(self, *, seed=None, options: dict[str, Any] | None = None):
        if options and "index" in options:
            options = {**options, "index": options["index"] % 300}
        return super().reset(seed=seed, options=options)


class ComplainsAtLength(Sound):
    def __init__(self, level=None, split="train", reward="sparse", horizon=None):
        if reward not in ("sparse", "dense"):
            raise UsageError("no such reward\nthere are two")
        super().__init__(level, split, reward, horizon)


# What is held.

_kept: list[Any] = []


class LeavesAProcess(Sound):
    def _reset_task(self, task):
        if not hasattr(self, "process"):
            self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            _kept.append(self.process)
        return super()._reset_task(task)


class LeavesAThread(Sound):
    def _reset_task(self, task):
        if not hasattr(self, "thread"):
            self.thread = threading.Thread(target=time.sleep, args=(8,), daemon=True)
            self.thread.start()
        return super()._reset_task(task)


class LeavesAFile(Sound):
    def _reset_task(self, task):
        if not hasattr(self, "file"):
            self.file = open(os.devnull)  # noqa: SIM115
            _kept.append(self.file)
        return super()._reset_task(task)


class IsClosedByItsEnd(Sound):
    """Gives its file back when it is collected, but not when it is closed."""

    def _reset_task(self, task):
        if not hasattr(self, "file"):
            self.file = open(os.devnull)  # noqa: SIM115
        return super()._reset_task(task)


class KeepsItsEpisodes(Sound):
    def _reset_task(self, task):
        _kept.append(random.Random(task.index).randbytes(1 << 20))
        return super()._reset_task(task)


class KeepsEpisodesElsewhere(Sound):
    """Its memory grows in a process of its own."""

    process: subprocess.Popen | None = None
    code = "import sys\nkept = []\nfor line in sys.stdin: kept.append(b'x' * (10 << 20)); print(flush=True)"

    def _reset_task(self, task):
        if self.process is None:
            pipe = subprocess.PIPE
            self.process = subprocess.Popen([sys.executable, "-c", self.code], stdin=pipe, stdout=pipe, bufsize=0)
        self.process.stdin.write(b"\n")
        self.process.stdout.readline()
        return super()._reset_task(task)

    def close(self):
        if self.process is not None:
            self.process.communicate()
            self.process = None


class RaisesInTheMiddle(Sound):
    def _step(self, action):
        if self.task.index == 2 and self.left == 1:
            raise KeyError("lost")
        return super()._step(action)


BROKEN: list[tuple[type[Sound], str, str]] = [  # what is broken, the check that finds it, what it says
    (StartsByHistory, "same start", "after another task"),
    (StartsByInstance, "same start", "in a second environment"),
    (AnswersByChance, "same episode", "step 1: the observation differs"),
    (PaysByChance, "same episode", "the reward differs"),
    (StartsByHash, "other process", "in another process"),
    (SharesContents, "contents", "are made of the same"),
    (SaysContentsNowAndThen, "contents", "/7: it says nothing of what this task is made of"),
    (SharesTasks, "disjoint splits", "are the same task"),
    (SharesOneTask, "disjoint splits", "train/10 and"),
    (SharesTasksSilently, "disjoint splits", "are the same task"),
    (ExpertLoses, "expert", "train/3, step 1: the environment refuses the expert's action"),
    (ExpertGivesUp, "expert", "train/3, step 3: the expert has no move"),
    (ExpertIsSlow, "expert", "the horizon after 6 steps"),
    (ExpertThinksNothing, "expert", "thought"),
    (PaysHalf, "rewards", "the sparse reward is 0.5"),
    (PaysForNothing, "rewards", "success is False"),
    (PaysTooMuch, "rewards", "sum to 2"),
    (PaysNoNumber, "rewards", "nan"),
    (WinsAndGoesOn, "rewards", "goes on"),
    (ListsWhatItRefuses, "admissible", "'jump' is refused"),
    (ListsTwice, "admissible", "twice"),
    (TakesNonsense, "admissible", "is accepted"),
    (IsHarmedByRefusals, "admissible", "does not win any more"),
    (IsEndedByRefusals, "admissible", "ends the episode"),
    (ShowsControlCharacters, "texts", "U+001B"),
    (ShowsSurrogates, "texts", "U+D800"),
    (ShowsTooMuch, "texts", "more than 20000"),
    (ShowsNothing, "texts", "the observation is empty"),
    (HasNoGoal, "texts", "the goal is empty"),
    (RaisesOnSurrogates, "any string", "lone surrogates as an action raises UnicodeEncodeError"),
    (RaisesOnFormats, "any string", "a format string as an action raises"),
    (Echoes, "any string", "a megabyte as an action"),
    (IsSpoiledByStrings, "any string", "does not win any more"),
    (StepsBeforeReset, "signatures", "before reset() raises nothing"),
    (IgnoresTheSeed, "signatures", "reset(seed=7)"),
    (DoesNotSayValid, "signatures", "info['valid']"),
    (ReturnsFour, "signatures", "five values"),
    (ClosesOnce, "signatures", "AttributeError"),
    (IsCutOffLate, "horizon", "with a horizon of 3 it is cut off"),
    (IsCutOffThoughItEnds, "horizon", "truncated=True"),
    (StepsAfterTheEnd, "horizon", "step() after the end raises nothing"),
    (TakesAnyLevel, "errors", "the level 'no-such-thing' raises nothing"),
    (TakesAnyIndex, "errors", "an index past the end raises nothing"),
    (ComplainsAtLength, "errors", "2 lines"),
    (LeavesAProcess, "close", "1 more processes"),
    (LeavesAThread, "close", "1 more threads"),
    (LeavesAFile, "close", "1 more files"),
    (IsClosedByItsEnd, "close", "1 more files"),
    (KeepsItsEpisodes, "memory", "this process grew by"),
    (KeepsEpisodesElsewhere, "memory", "its children grew by"),
    (RaisesInTheMiddle, "expert", "step 2: raises KeyError"),
]

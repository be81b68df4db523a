"""Tasks of reasoning-gym as domains: `reasoning-gym:TASK`. One step each: the question, and an answer that is scored.

An answer succeeds at a score of 1; partial credit is the dense reward. Its question is what a task is made of, so no
two splits share one. The reference answer is the expert's, where the task has one. Settings of a task are its defaults;
for others write a factory: `def hard(): return ReasoningGymEnv("chain_sum", min_terms=8)`.
"""

from __future__ import annotations

from typing import Any

import gymnasium

from gentax.core.env import AnyText
from gentax.core.errors import UsageError, unknown
from gentax.core.imports import require


class ReasoningGymEnv(gymnasium.Env[str, str]):
    """Answer a question of reasoning-gym.

    Args:
        task: the name of a data set, such as `chain_sum`.
        settings: of the data set.

    Raises:
        UsageError: reasoning-gym is not installed; it has no such data set, or refuses the settings.
    """

    observation_space = action_space = AnyText()
    rules = (
        "Answer the question. The whole of your action is the answer: no units, no explanation, unless it asks for it."
    )
    horizon = 1

    def __init__(self, task: str, **settings: Any) -> None:
        library = require("reasoning_gym", f"reasoning-gym:{task}", "reasoning-gym")
        names = sorted(set(library.factory.DATASETS) - {"composite"})  # which is made of others
        if task not in names:
            raise unknown("task of reasoning-gym", task, names)
        self._create, self._task, self._settings = library.create_dataset, task, settings
        try:
            self._start(seed=0)
        except Exception as error:
            raise UsageError(f"reasoning-gym:{task} cannot be made: {type(error).__name__}: {error}") from error

    def _start(self, seed: int) -> None:
        self._data = self._create(self._task, seed=seed, size=1, **self._settings)
        self._entry: dict[str, Any] = self._data[0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._start(seed=int(self.np_random.integers(1 << 31)) if seed is None else seed)
        question = self._entry["question"]
        return question, {"goal": "Give the right answer.", "content": question}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        try:
            score = float(self._data.score_answer(action.strip(), self._entry))
        except Exception:  # some scorers raise on what they cannot parse: that is a wrong answer
            score = 0.0
        right = score >= 1
        return "Right." if right else "Wrong.", min(max(score, 0.0), 1.0), True, False, {"success": right}

    def expert(self) -> str | None:
        """Return the reference answer, where there is one."""
        return self._entry["answer"]

"""Goal-irrelevant text in what the agent reads (arXiv 2601.18217): a richer state, the same task.

Goal, admissible actions, dynamics, reward and outcome are untouched. The text depends on the task and the number of
the step alone, so that all samples of a task read the same. What the text says is the generators' business. The
paper trains with them and evaluates without.
"""

from __future__ import annotations

from random import Random

import gymnasium

from gentax.core.env import stable_seed
from gentax.core.errors import UsageError
from gentax.wrappers.base import TextWrapper
from gentax.wrappers.generators import Scene, generator, words_of

MAX_VOLUME = 100_000  # volume


class Distractor(TextWrapper):
    """Adds the text of a generator to every observation of an episode, or to none.

    Args:
        env: any text environment.
        volume: how much text, the paper's ε; each generator says how it counts. 0 is none, None the generator's own
            usual one (the paper's where it gives one).
        probability: of an episode to have any, drawn from its task.
        kind: "contextual" (things that fit the domain; generic where it has no generator of its own) or "generic"
            (a glimpse of another domain).

    Raises:
        UsageError: a volume that is not an integer in [0, `MAX_VOLUME`], a probability outside [0, 1], an unknown kind.
    """

    def __init__(
        self,
        env: gymnasium.Env[str, str],
        volume: int | None = None,
        probability: float = 1.0,
        kind: str = "contextual",
    ) -> None:
        super().__init__(env, volume=volume, probability=probability, kind=kind)
        if volume is not None and not (isinstance(volume, int) and 0 <= volume <= MAX_VOLUME):
            raise UsageError(f"the volume of distractors must be a whole number from 0 to {MAX_VOLUME}, not {volume}")
        if not 0 <= probability <= 1:
            raise UsageError(f"the probability of distractors must be from 0 to 1, not {probability}")
        self._name = self.domain.name
        self.generator = generator(self._name, kind)
        self.volume = self.generator.volume if volume is None else volume
        self.probability = probability
        self.active = False  # whether this episode has distractors
        self._rng = Random()
        self._seed = 0
        self._goal_words: frozenset[str] = frozenset()

    def on_reset(self) -> None:
        assert self.task is not None
        self._seed = stable_seed(self.task.seed, "distractors", self.generator.name)
        self._rng.seed(self._seed - 1)
        self.active = self.volume > 0 and self._rng.random() < self.probability
        self._goal_words = words_of(self.goal)

    def transform_observation(self, observation: str) -> str:
        if not self.active:
            return observation
        self._rng.seed(self._seed + self.steps)
        actions = self.admissible() if self.generator.reads_actions else None
        named = "\n".join((observation, *(actions or ()))).lower()
        scene = Scene(self._name, observation, self.goal, self._goal_words, named)
        return self.generator.write(scene, self.volume, self._rng)


def distract(
    env: gymnasium.Env[str, str], volume: int | None = None, probability: float = 1.0, kind: str = "contextual"
) -> Distractor:
    """Return `env` with distractors: see `Distractor`.

    >>> env = gentax.distract(gentax.make("sokoban"), volume=80, probability=0.5)  # doctest: +SKIP
    """
    return Distractor(env, volume, probability, kind)

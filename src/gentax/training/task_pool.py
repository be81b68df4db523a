"""Which tasks a run learns from, and which it is validated on: of the splits `train` and `validation`."""

from __future__ import annotations

from dataclasses import dataclass

from gentax.core import Task, UsageError
from gentax.domains import make
from gentax.domains.names import read_domain
from gentax.domains.untouched import why_not_untouched
from gentax.training.config import TrainConfig


@dataclass(frozen=True)
class TaskPool:
    """One part of a mixture: a domain at a level."""

    name: str  # as the recipe has it: `domain` or `domain:level`
    learn: tuple[Task, ...]
    look: tuple[Task, ...]  # of the validation split; none where the domain has no such split
    horizon: int  # steps after which an episode ends


def ground(name: str, recipe: TrainConfig) -> TaskPool:
    """Return the tasks of `domain` or `domain:level`.

    Raises:
        UsageError: a name or a level that does not exist, or validation tasks that decide and may be train tasks.
    """
    domain, level = read_domain(name)
    env = make(domain, level, horizon=recipe.play.horizon)
    try:
        if recipe.retain.interpolate is not None and (why := why_not_untouched(env, "validation")):
            raise UsageError(
                f"recipe: retain.interpolate chooses by validation tasks, and {name} {why}; choose a share by hand and "
                "use `gentax merge --method interpolate`"
            )
        learn = env.tasks("train", min(recipe.train_tasks, env.size("train")))
        look: list[Task] = []
        if "validation" in env.domain.splits:
            look = env.tasks("validation", min(recipe.validate_tasks, env.size("validation")))
        return TaskPool(name, tuple(learn), tuple(look), env.horizon)
    finally:
        env.close()

"""Which tasks a run learns from, and which it is validated on: of the splits `train` and `validation`."""

from __future__ import annotations

from dataclasses import dataclass

from gentax.core import Task
from gentax.domains import make
from gentax.domains.names import read_domain
from gentax.training.recipe import Recipe


@dataclass(frozen=True)
class Ground:
    """One part of a mixture: a domain at a level."""

    name: str  # as the recipe has it: `domain` or `domain:level`
    learn: tuple[Task, ...]
    look: tuple[Task, ...]  # of the validation split; none where the domain has no such split
    horizon: int  # steps after which an episode ends


def ground(name: str, recipe: Recipe) -> Ground:
    """Return the tasks of `domain` or `domain:level`. Raises UsageError for a name or a level that does not exist."""
    domain, level = read_domain(name)
    env = make(domain, level, horizon=recipe.play.horizon)
    try:
        learn = env.tasks("train", min(recipe.train_tasks, env.size("train")))
        look: list[Task] = []
        if "validation" in env.domain.splits:
            look = env.tasks("validation", min(recipe.validate_tasks, env.size("validation")))
        return Ground(name, tuple(learn), tuple(look), env.horizon)
    finally:
        env.close()

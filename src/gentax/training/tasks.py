"""Which tasks a run learns from, and which it looks at meanwhile: both of splits that no measurement uses."""

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
    look: tuple[Task, ...]  # for validation: of the `dev` split where there is one, else the far end of `train`
    horizon: int  # steps after which an episode ends


def ground(name: str, recipe: Recipe) -> Ground:
    """Return the tasks of `domain` or `domain:level`. Raises UsageError for a name or a level that does not exist."""
    domain, level = read_domain(name)
    env = make(domain, level, horizon=recipe.play.horizon)
    try:
        size = env.size("train")
        if "dev" in env.domain.splits:
            apart = 0
            look = env.tasks("dev", min(recipe.validate_tasks, env.size("dev")))
        else:
            apart = min(recipe.validate_tasks, size // 4)
            look = [Task(domain, env.level, "train", size - 1 - i) for i in range(apart)]
        learn = env.tasks("train", min(recipe.train_tasks, size - apart))
        return Ground(name, tuple(learn), tuple(look), env.horizon)
    finally:
        env.close()

"""Which tasks a run learns from, and which it is validated on: of the splits `train` and `validation`."""

from __future__ import annotations

from dataclasses import dataclass

from gentax.core import Task, TextEnv, UsageError
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
        if recipe.retain.interpolate is not None:
            _check_validation(name, env)
        learn = env.tasks("train", min(recipe.train_tasks, env.size("train")))
        look: list[Task] = []
        if "validation" in env.domain.splits:
            look = env.tasks("validation", min(recipe.validate_tasks, env.size("validation")))
        return Ground(name, tuple(learn), tuple(look), env.horizon)
    finally:
        env.close()


def _check_validation(name: str, env: TextEnv) -> None:
    """Refuse a domain of whose validation tasks nobody can say that training did not see them, where they decide.

    Raises:
        UsageError: it has no validation tasks, or does not say what its tasks are made of.
    """
    lacking = ""
    if "validation" not in env.domain.splits or not env.size("validation"):
        lacking = "has no validation split"
    elif env.content_of(env.tasks("validation", 1)[0]) is None:
        lacking = "does not say what its tasks are made of (`content`), so that its validation tasks may be train tasks"
    if lacking:
        raise UsageError(
            f"recipe: retain.interpolate chooses by validation tasks, and {name} {lacking}; choose a share by hand and "
            "use `gentax merge --method interpolate`"
        )

"""The domains that a training run touches: those whose tasks, text or experts enter it in any form."""

from __future__ import annotations

import json
from pathlib import Path

from gentax.core import UsageError
from gentax.core.settings import read_settings
from gentax.domains.names import read_domain
from gentax.training.config import TrainConfig
from gentax.training.forgetting.replay import replayed_domains


def touched_by(recipe: TrainConfig) -> frozenset[str]:
    """Return the domains that are trained on, imitated (by experts, other policies or files) or replayed.

    The source is among them. A remedy is judged by the targets that are not.

    Raises:
        UsageError: `retain.replay` has no domain left to replay.
    """
    teachers = recipe.imitate.teachers if recipe.imitate is not None else {}
    named = (*recipe.trained, *recipe.imitated, *teachers, *replayed_domains(recipe))
    return frozenset(read_domain(name)[0] for name in named)


def touched_by_run(model: Path) -> frozenset[str] | None:
    """Return the domains that the run of a checkpoint touched; None for a model that is from no run of gentax.

    Args:
        model: a checkpoint in a run's folder, or that folder.

    Raises:
        UsageError: a run of another version, whose recipe cannot be read.
    """
    for folder in (model, model.parent):
        record = folder / "recipe.json"
        try:
            values = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(values, dict) or "retain" not in values:  # somebody else's
            continue
        try:
            return touched_by(read_settings(TrainConfig, values, str(record)))
        except UsageError as error:
            why = f"{record} does not say what training touched: {error}"
            raise UsageError(f"{why}; move it away and name the targets with --touched") from None
    return None

"""One policy for each part of a mixture, all from the same start, merged at the end (Retain.merge)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gentax.core import UsageError
from gentax.training.config import Phase, SFTConfig, TrainConfig
from gentax.training.distributed import World
from gentax.training.forgetting import merge_models
from gentax.training.run_folder import Row, RunFolder


def train_and_merge(config: TrainConfig, run: Path, on_row: Callable[[Row], None]) -> Path:
    """Train the experts, each in a folder of its own in the run's, and merge them; return the merged model's folder.

    The steps of the mixture are shared out by its weights, so that the whole costs what one policy on it would.

    Raises:
        UsageError: under torchrun; the experts can be trained so one by one.
    """
    from gentax.training.run import train

    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UsageError("forgetting.merge runs in one process: train the experts one by one, then `gentax merge` them")

    assert config.forgetting.merge is not None
    folder = RunFolder.open(run, config, World())
    (phase,) = config.phases()
    results = []
    for name, share in phase.shares.items():
        alone = (Phase({name: 1.0}, max(1, round(phase.max_steps * share))),)
        one = replace(
            config,
            curriculum=replace(config.curriculum, phases=alone),
            forgetting=replace(config.forgetting, merge=None),
            sft=_of(config.sft, name),
        )
        label = re.sub(r"[^\w-]+", "-", name)
        results.append(train(one, run / f"expert-{label}", on_row, progress=False))
    merge_models(config.model, results, config.forgetting.merge, run / "merged", model=config.options())
    return folder.finish(run / "merged", experts=[str(result.relative_to(run)) for result in results])


def _of(sft: SFTConfig | None, name: str) -> SFTConfig | None:
    """Return what is imitated for one part: what the recipe names, or else that part, by its own teacher."""
    if sft is None or sft.mixture:
        return sft
    return replace(sft, teachers={key: teacher for key, teacher in sft.teachers.items() if key == name})

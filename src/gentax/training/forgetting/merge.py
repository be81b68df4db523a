"""Merging: the weights of several policies, trained from one start each on its own domain, made one policy.

Left out: TIES-Merging (arXiv 2306.01708), which broke all the experts it was tried on
(see docs/results/forgetting.md), and weights for the policies.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gentax.core import UsageError, unknown
from gentax.core.files import atomic_folder, lock_folder
from gentax.models.loading import load_with_tokenizer
from gentax.models.options import ModelOptions
from gentax.training.config import Phase, SFTConfig
from gentax.training.distributed import World
from gentax.training.forgetting import ForgettingMethod
from gentax.training.forgetting.interpolate import Weights, combine, interpolate
from gentax.training.run_folder import RunFolder, save_model

METHODS = ("mean", "interpolate")
RECORD = "merge.json"


class MergeExperts(ForgettingMethod):
    """Trains one policy for each part of the mixture, all from the same start, and merges them at the end."""

    def train_instead(self, run: Path, train: Callable[..., Path], on_step: Callable[..., None]) -> Path | None:
        """Train the experts, each in a folder of its own in the run's, and merge them.

        The steps of the mixture are shared out by its weights, so that the whole costs what one policy on it would.

        Raises:
            UsageError: under torchrun, where the experts can be trained one by one.
        """
        config = self.config
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise UsageError(
                "forgetting.merge runs in one process: train the experts one by one, then `gentax merge` them"
            )
        assert config.forgetting.merge is not None
        folder = RunFolder.open(run, config, World())
        (phase,) = config.phases()
        results = []
        for name, share in phase.shares.items():
            phases = (Phase({name: 1.0}, max(1, round(phase.max_steps * share))),)
            expert = replace(
                config,
                curriculum=replace(config.curriculum, phases=phases),
                forgetting=replace(config.forgetting, merge=None),
                sft=_sft_of_part(config.sft, name),
            )
            label = re.sub(r"[^\w-]+", "-", name)
            results.append(train(expert, run / f"expert-{label}", on_step, progress=False))
        merge_models(config.model, results, config.forgetting.merge, run / "merged", model=config.options())
        return folder.finish(run / "merged", experts=[str(result.relative_to(run)) for result in results])


def _sft_of_part(sft: SFTConfig | None, name: str) -> SFTConfig | None:
    """Return the supervised fine-tuning of one part: on the config's mixture, or else on that part by its teacher."""
    if sft is None or sft.mixture:
        return sft
    return replace(sft, teachers={key: teacher for key, teacher in sft.teachers.items() if key == name})


def mean(start: Weights, tuned: Sequence[Weights], names: Sequence[str] = ()) -> dict[str, torch.Tensor]:
    """Return the mean of the weights of policies trained from one start (see `combine`)."""
    return combine(start, tuned, lambda _, *weights: torch.stack(weights).mean(0), names)


def merge_models(
    start: str | Path,
    folders: Sequence[str | Path],
    method: str,
    out: str | Path,
    share: float = 0.5,
    model: ModelOptions = ModelOptions(),
) -> Path:
    """Merge model folders into a new one with the start's configuration and tokenizer; return it.

    `merge.json` beside the weights says what they were made of. Everything is merged on the CPU.

    Args:
        start: the model that all were trained from: `base`, a folder, a hub name, an adapter or a GGUF file.
        folders: the models, named likewise.
        method: `mean`, or `interpolate`, which takes one folder.
        out: a new or an empty folder, or one that holds the result of the same merge.
        share: how far `interpolate` goes from the start to the tuned weights, 0 to 1.
        model: how the start is loaded; the result has its number format.

    Raises:
        UsageError: an unknown method, a folder that is no model, policies of another tokenizer or shape, too few or
            too many of them, or a folder `out` that holds something.
    """
    if method not in METHODS:
        raise unknown("method of merging", method, METHODS)
    if method == "interpolate" and len(folders) != 1:
        raise UsageError(f"interpolate goes from the start to one policy, not to {len(folders)}")
    if method != "interpolate" and len(folders) < 2:
        raise UsageError(f"{method} merges at least 2 policies, not {len(folders)}")
    names = [str(folder) for folder in folders]
    record: dict[str, Any] = {"start": str(start), "of": names, "method": method}
    if method == "interpolate":
        record["share"] = share
    out = Path(out)
    with lock_folder(out, "merging"):
        _check_out(out, record)
        return _merge(start, names, method, out, record, share, model)


def _merge(
    start: str | Path,
    names: list[str],
    method: str,
    out: Path,
    record: dict[str, Any],
    share: float,
    model: ModelOptions,
) -> Path:
    _, start_model, tokenizer = load_with_tokenizer(start, replace(model, device="cpu"))
    tuned = []
    for folder in names:
        _, policy, its_tokenizer = load_with_tokenizer(folder, ModelOptions("cpu"))
        if its_tokenizer.get_vocab() != tokenizer.get_vocab():
            raise UsageError(f"{folder} and {start} have different tokens: they do not come from one start")
        tuned.append(policy.state_dict())
    weights = start_model.state_dict()
    merged = interpolate(weights, tuned[0], share, names[0]) if method == "interpolate" else mean(weights, tuned, names)
    with atomic_folder(out) as aside:
        save_model(start_model, tokenizer, aside, merged)
        (aside / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return out


def _check_out(out: Path, record: dict[str, Any]) -> None:
    """Refuse to replace anything but an earlier result of the same merge."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        same = json.loads((out / RECORD).read_text(encoding="utf-8")) == record
    except (OSError, ValueError):
        same = False
    if not same:
        raise UsageError(f"{out} is there already and holds something else; give a new folder")

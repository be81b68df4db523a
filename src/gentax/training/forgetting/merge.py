"""One policy of several that were trained from the same start, each on its own domain: their weights merged.

`mean` is the mean of the weights. `ties` (TIES-Merging, arXiv 2306.01708) merges what training changed: of each
policy's change the largest entries, at each entry those of the sign that weighs more. Left out: weights for the
policies, and a scale on the merged change, which wants validation tasks (the paper's default is 1).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gentax.core import UsageError, unknown
from gentax.core.files import atomic_folder
from gentax.models.loading import load_with_tokenizer
from gentax.models.requests import ModelOptions
from gentax.training.checkpoint import save_model
from gentax.training.forgetting.interpolate import interpolate
from gentax.training.forgetting.weights import Weights, combine

METHODS = ("mean", "ties")
RECORD = "merge.json"
DENSITY = 0.2  # the share of a change that TIES keeps; its paper's default


def merge(
    start: Weights, tuned: Sequence[Weights], method: str, density: float = DENSITY, names: Sequence[str] = ()
) -> dict[str, torch.Tensor]:
    """Merge the weights of policies trained from one start; computed in fp32, returned in the start's formats.

    Args:
        start: weights by name. Names that share memory are one weight.
        tuned: one or more like it.
        method: `mean` or `ties`.
        density: the share of each policy's change that `ties` keeps, from above 0 to 1.
        names: how messages call the tuned policies.

    Raises:
        UsageError: an unknown method, a density out of range, or weights that are not like the start's.
    """
    if method not in METHODS:
        raise unknown("method of merging", method, METHODS)
    if not 0 < density <= 1:
        raise UsageError(f"density must be more than 0 and at most 1, not {density}")
    return combine(start, tuned, _mean if method == "mean" else partial(_ties, density=density), names)


def _mean(start: Weights, tuned: Sequence[Weights]) -> Weights:
    return {name: torch.stack([weights[name] for weights in tuned]).mean(0) for name in start}


def _ties(start: Weights, tuned: Sequence[Weights], density: float) -> Weights:
    """Trim, elect signs, mean of those that agree (arXiv 2306.01708, algorithm 1, with lambda 1)."""
    changes = [_trimmed({name: weights[name] - start[name] for name in start}, density) for weights in tuned]
    made = {}
    for name in start:
        change_P = torch.stack([change[name] for change in changes])  # (policies, *the weight's own shape)
        # The sign with the larger total magnitude is that of the sum; where they cancel out, nothing changes.
        agrees_P = change_P * change_P.sum(0).sign() > 0
        made[name] = start[name] + (change_P * agrees_P).sum(0) / agrees_P.sum(0).clamp(min=1)
    return made


def _trimmed(change: dict[str, torch.Tensor], density: float) -> dict[str, torch.Tensor]:
    """Set all but the largest entries, of all weights together, to 0; those as large as the last one kept stay."""
    size_N = torch.cat([x.abs().flatten() for x in change.values()])
    least = size_N.kthvalue(len(size_N) - math.ceil(density * len(size_N)) + 1).values
    return {name: x * (x.abs() >= least) for name, x in change.items()}


def merge_models(
    start: str | Path,
    folders: Sequence[str | Path],
    method: str,
    out: str | Path,
    share: float = 0.5,
    model: ModelOptions = ModelOptions(),
) -> Path:
    """Merge model folders into a new one with the start's configuration and tokenizer; return it.

    `merge.json` beside the weights says what they were made of.

    Args:
        start: the model that all were trained from: `base`, a folder, a hub name, an adapter or a GGUF file.
        folders: the models, named likewise.
        method: `mean`, `ties`, or `interpolate`, which takes one folder.
        out: where to: a new or an empty folder, or one that holds the result of the same merge.
        share: how far `interpolate` goes from the start to the tuned weights, 0 to 1; no other method reads it.
        model: how the start is loaded; the result has its number format. Everything is merged on the CPU.

    Raises:
        UsageError: an unknown method, a folder that is no model, policies of another tokenizer or shape, too few or
            too many of them, or a folder `out` that holds something.
    """
    if method not in (*METHODS, "interpolate"):
        raise unknown("method of merging", method, (*METHODS, "interpolate"))
    if method == "interpolate" and len(folders) != 1:
        raise UsageError(f"interpolate goes from the start to one policy, not to {len(folders)}")
    if method != "interpolate" and len(folders) < 2:
        raise UsageError(f"{method} merges at least 2 policies, not {len(folders)}")
    names = [str(folder) for folder in folders]
    how = {"interpolate": {"share": share}, "ties": {"density": DENSITY}}.get(method, {})
    record = {"start": str(start), "of": names, "method": method, **how}
    out = Path(out)
    _check_out(out, record)
    _, first, tokenizer = load_with_tokenizer(start, replace(model, device="cpu"))
    tuned = []
    for folder in folders:
        _, other, its_tokenizer = load_with_tokenizer(folder, ModelOptions("cpu"))
        if its_tokenizer.get_vocab() != tokenizer.get_vocab():
            raise UsageError(f"{folder} and {start} have different tokens: they do not come from one start")
        tuned.append(other.state_dict())
    weights = first.state_dict()
    made = (
        interpolate(weights, tuned[0], share, names[0])
        if method == "interpolate"
        else merge(weights, tuned, method, names=names)
    )
    with atomic_folder(out) as aside:
        save_model(first, tokenizer, aside, made)
        (aside / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return out


def _check_out(out: Path, record: dict[str, Any]) -> None:
    """Refuse to replace anything but an earlier result of the same merge."""
    if out.is_dir() and (not any(out.iterdir()) or _record(out) == record):
        return
    if out.exists():
        raise UsageError(f"{out} is there already and holds something else; give a new folder")


def _record(folder: Path) -> Any:
    try:
        return json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None

"""Merging: weights of policies that were trained from one start, made one policy (`gentax merge`, `forgetting.merge`).

`mean` joins several policies; `interpolate` goes back from one towards the start (WiSE-FT, arXiv 2109.01903), which
gives up a part of what was learned to undo a part of what was forgotten. How far a run goes back is chosen by success
on validation tasks of what was trained on; no other domain is evaluated. Left out: TIES-Merging (arXiv 2306.01708),
which broke all the experts it was tried on (see docs/results/forgetting.md), and weights for the policies.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gentax.core import UsageError, unknown
from gentax.core.files import atomic_folder, lock_folder
from gentax.models.device import stochastic_round_
from gentax.models.loading import load_with_tokenizer
from gentax.models.options import ModelOptions
from gentax.training.config import Phase, SFTConfig, TrainConfig
from gentax.training.distributed import World
from gentax.training.forgetting import ForgettingMethod
from gentax.training.run_folder import RunFolder, save_model

Weights = Mapping[str, torch.Tensor]

METHODS = ("mean", "interpolate")
RECORD = "merge.json"
KEPT_GAIN = 0.9  # of the success that training gained on validation tasks
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the trained weights, tried from small to large


class Merge(ForgettingMethod):
    """`mean`: trains one policy for each part of the mixture, all from the same start, and merges them. `interpolate`:
    ends the run with the weights nearest to the start that keep `KEPT_GAIN` of the gain."""

    result = "interpolated"

    def train_instead(self, run: Path, train: Callable[[TrainConfig, Path], Path]) -> Path | None:
        """Train the experts, each in a folder of its own in the run's, and merge them.

        The steps of the mixture are shared out by its weights, so that the whole costs what one policy on it would.

        Raises:
            UsageError: under torchrun, where the experts can be trained one by one.
        """
        config = self.config
        if config.forgetting.merge != "mean":
            return None
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise UsageError(
                "forgetting.merge runs in one process: train the experts one by one, then `gentax merge` them"
            )
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
            results.append(train(expert, run / f"expert-{label}"))
        merge_models(config.model, results, "mean", run / "merged", model=config.options())
        return folder.finish(run / "merged", experts=[str(result.relative_to(run)) for result in results])

    def finalize(
        self, start: Weights, trained: Weights, success_of: Callable[[Weights], float]
    ) -> tuple[Weights, dict[str, Any]]:
        share, tried = nearest_that_keeps(lambda share: success_of(interpolate(start, trained, share)))
        return interpolate(start, trained, share), {"share": share, "tried": tried}


def _sft_of_part(sft: SFTConfig | None, name: str) -> SFTConfig | None:
    """Return the supervised fine-tuning of one part: on the config's mixture, or else on that part by its teacher."""
    if sft is None or sft.mixture:
        return sft
    return replace(sft, teachers={key: teacher for key, teacher in sft.teachers.items() if key == name})


def nearest_that_keeps(
    success_at: Callable[[float], float], keep: float = KEPT_GAIN, shares: Sequence[float] = SHARES
) -> tuple[float, list[dict[str, float]]]:
    """Find the smallest share of the trained weights that keeps a part of what training gained.

    Success is measured on few tasks and need not rise evenly, so this is no bisection: after both ends, shares are
    tried from small to large. Noise in the success favours small shares a little.

    Args:
        success_at: plays validation tasks with the weights at a share, always the same; returns their success, 0 to 1.
        keep: the part of the gain to keep, 0 to 1.
        shares: what to try between 0 and 1, rising.

    Returns:
        The share, 0.0 where training gained nothing on these tasks; and a row {share, success} for each that was
        played, rising.
    """
    success = {share: success_at(share) for share in (0.0, 1.0)}
    gain = success[1.0] - success[0.0]
    chosen = 1.0 if gain > 0 else 0.0
    for share in shares if gain > 0 else ():
        if share not in success:
            success[share] = success_at(share)
        if success[share] >= success[0.0] + keep * gain - 1e-9:
            chosen = share
            break
    return chosen, [{"share": share, "success": success[share]} for share in sorted(success)]


def interpolate(start: Weights, tuned: Weights, share: float, name: str = "the policy") -> dict[str, torch.Tensor]:
    """Return start + share × (tuned − start); exact at 0 and at 1. See `combine`.

    Raises:
        UsageError: a share out of range, or weights that are not like the start's.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"the share of the trained weights must be from 0 to 1, not {share}")
    return combine(start, [tuned], lambda a, b: torch.lerp(a, b, share), [name])


def mean(start: Weights, tuned: Sequence[Weights], names: Sequence[str] = ()) -> dict[str, torch.Tensor]:
    """Return the mean of the weights of policies trained from one start (see `combine`)."""
    return combine(start, tuned, lambda _, *weights: torch.stack(weights).mean(0), names)


def combine(
    start: Weights,
    tuned: Sequence[Weights],
    rule: Callable[..., torch.Tensor],
    names: Sequence[str] = (),
) -> dict[str, torch.Tensor]:
    """Combine weights one by one; return them under the start's names and in its number formats.

    Two names for one tensor (tied embeddings) are combined once and stay tied. Integers, such as position tables, are
    the start's.

    Args:
        start: weights by name.
        tuned: weights of policies trained from it.
        rule: returns a weight from the start's and the tuned ones (`rule(start, *tuned)`), all in fp32.
        names: of the tuned ones, for error messages; "policy 1" and so on when empty.

    Raises:
        UsageError: names, shapes, integers or ties that are not the start's.
    """
    names = names or [f"policy {n}" for n in range(1, len(tuned) + 1)]
    first_name: dict[tuple[int, torch.Size], str] = {}
    same_as = {
        name: first_name.setdefault((x.data_ptr(), x.shape), name) if x.numel() else name for name, x in start.items()
    }
    for label, weights in zip(names, tuned, strict=True):
        _check_alike(start, weights, same_as, label)
    result: dict[str, Any] = {}
    for name, weight in start.items():
        if same_as[name] != name or not weight.is_floating_point():
            result[name] = result.get(same_as[name], weight)
            continue
        exact = rule(*(weights[name].detach().to(weight.device, torch.float32) for weights in (start, *tuned)))
        result[name] = torch.empty_like(weight)
        stochastic_round_(result[name], exact, name)
    return result


def _check_alike(start: Weights, weights: Weights, same_as: Mapping[str, str], label: str) -> None:
    """Raise UsageError at the first weight that is not like the start's."""
    for name, weight in start.items():
        if name not in weights:
            raise UsageError(f"{label} has no {name}, which the start has: it was not trained from there")
        tuned = weights[name]
        if tuned.shape != weight.shape:
            shapes = ["x".join(map(str, x.shape)) or "one number" for x in (tuned, weight)]
            raise UsageError(f"{name} of {label} is {shapes[0]}, and the start's is {shapes[1]}")
        if not weight.is_floating_point() and not torch.equal(tuned.to(weight), weight):
            raise UsageError(f"{name} of {label} is not the start's, and whole numbers cannot be merged")
        if same_as[name] != name and not torch.equal(tuned, weights[same_as[name]]):
            raise UsageError(f"{same_as[name]} and {name} are one weight in the start and two in {label}")
    if extra := next((name for name in weights if name not in start), None):
        raise UsageError(f"{label} has {extra}, which the start does not have: it was not trained from there")


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

"""PEFT adapters: checked against their base model, loaded from safetensors, and merged into its weights.

A merged adapter is an ordinary model for everything else. It is merged in fp32 and rounded stochastically to the dtype
of the weights (see `precision.py`), since rounding to nearest would lose much of what a short training adds. Not
supported: prompt tuning and the like, which no weight can hold, and adapters that also changed their base (PiSSA,
OLoRA, CorDA, LoftQ) and were not saved as plain LoRA.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gentax.core import UsageError, unknown
from gentax.models.checkpoint_check import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    error_line,
    few,
    meta_tensors,
    read_json,
    read_safetensors_header,
)
from gentax.models.precision import stochastic_round_

MERGEABLE_TYPES = ("LORA", "ADALORA", "IA3", "LOHA", "LOKR", "OFT", "BOFT", "VERA", "HRA")  # that can be merged
_MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initialisations that change the base's weights
_REFUSED = {
    "megatron_config": "names code to import",
    "layer_replication": "repeats layers of the model",
    "alora_invocation_tokens": "works from some tokens on, and cannot be merged",
}


def check_adapter(folder: Path, skeleton: Any, where: str) -> int:
    """Check an adapter against its base on the meta device; return the bytes it takes unmerged.

    Raises:
        UsageError: a type that cannot be merged, or weights that are missing, unexpected or of another shape.
    """
    import peft

    config = _config_of(folder, where)
    state = meta_tensors(read_safetensors_header(folder / ADAPTER_WEIGHTS), where)
    try:
        with torch.device("meta"):
            wrapped = peft.PeftModelForCausalLM(skeleton, config, low_cpu_mem_usage=True)
        keys = peft.set_peft_model_state_dict(wrapped, state, low_cpu_mem_usage=True)
    except Exception as error:
        raise UsageError(f"{where} does not fit its model: {error_line(error)}") from None
    if keys.unexpected_keys:
        raise UsageError(f"{where} has {few(keys.unexpected_keys)}, for which its model has no place")
    if missing := [name for name in keys.missing_keys if _added(name, wrapped)]:
        raise UsageError(f"{where} lacks {few(missing)} for its model: is it for another one?")
    return (folder / ADAPTER_WEIGHTS).stat().st_size


def merge_adapter(model: Any, folder: Path, where: str) -> Any:
    """Merge an adapter that passed `check_adapter` into `model`, which is changed and returned."""
    import peft
    from peft.tuners.tuners_utils import BaseTunerLayer
    from safetensors.torch import load_file

    wrapped = peft.PeftModelForCausalLM(model, _config_of(folder, where), low_cpu_mem_usage=True)
    weights = load_file(folder / ADAPTER_WEIGHTS, device=str(model.device))
    peft.set_peft_model_state_dict(wrapped, weights, low_cpu_mem_usage=True)
    try:
        for name, layer in wrapped.named_modules():
            if isinstance(layer, BaseTunerLayer):
                with _in_fp32(layer.get_base_layer(), name):
                    layer.merge(safe_merge=True)  # refuses a result that is not finite
        merged = wrapped.merge_and_unload(safe_merge=True)  # what is merged already stays
    except ValueError as error:
        raise UsageError(f"{where} cannot be merged: {error_line(error)}") from None
    vars(merged).pop("peft_config", None)
    return merged.requires_grad_(True)


@contextmanager
def _in_fp32(layer: Any, name: str) -> Iterator[None]:
    """Widen a layer's weights to fp32 meanwhile, then round them to their stored dtype."""
    half = (torch.bfloat16, torch.float16)
    weights = {key: weight for key, weight in layer.named_parameters(recurse=False) if weight.dtype in half}
    stored = {key: weight.data for key, weight in weights.items()}
    for weight in weights.values():
        weight.data = weight.data.float()
    yield
    for key, weight in weights.items():
        stochastic_round_(stored[key], weight.data, f"{name}.{key}")
        weight.data = stored[key]


def _config_of(folder: Path, where: str) -> Any:
    """Read an adapter's untrusted configuration, checked before PEFT sees it."""
    import peft

    values = read_json(folder / ADAPTER_CONFIG)
    kind = values.get("peft_type")
    if kind not in MERGEABLE_TYPES:
        if kind in getattr(peft.PeftType, "__members__", {}):
            raise UsageError(f"{where} is an adapter of type {kind}, which cannot be merged into a model's weights")
        raise unknown(f"peft_type of {where}", kind, MERGEABLE_TYPES)
    for key, why in _REFUSED.items():
        if values.get(key):
            raise UsageError(f"{where}: {key} in its {ADAPTER_CONFIG} {why}, which is not supported")
    init = values.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_MOVES_BASE):
        raise UsageError(
            f"{where} began by {init}, which changes the model's own weights: save it as plain LoRA "
            "(PEFT's path_initial_model_for_weight_conversion)"
        )
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
    except (TypeError, ValueError, ImportError) as error:
        raise UsageError(f"{where}: {ADAPTER_CONFIG} is not sound: {error_line(error)}") from None
    if hasattr(config, "init_lora_weights"):
        config.init_lora_weights = False  # they are read from the file
    config.inference_mode = True
    return config


def _added(name: str, wrapped: Any) -> bool:
    """Return whether a weight belongs to the adapter and not to its base."""
    prefix = getattr(wrapped.base_model, "prefix", "lora_")
    return prefix in name or ".modules_to_save." in name

"""A model without its numbers: built on PyTorch's meta device from its configuration, and compared with its weights.

What comes of it is exact, since transformers itself matches names and shapes; and it costs no memory, since nothing is
read. A configuration that asks for a hundred thousand layers is refused before or while they are made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from gentax.core import UsageError, unknown
from gentax.models.headers import Tensor

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip
_LAYERS = 10_000  # of any kind; the deepest models have some hundreds
_MODULES = 10_000  # more than ten for each tensor, and than this, are no model that anybody trained
_CODE = ("attn_implementation", "experts_implementation", "kernel")  # keys that may name code on the hub
_SPARE = re.compile(r"(v_head|value_head)\.")  # what trainers leave in a checkpoint that is no part of the model


def check_config(values: Mapping[str, Any], tensors: Mapping[str, Any], where: str, trusted: bool = False) -> None:
    """Refuse a `config.json` that names no causal model of transformers, or asks for what weights cannot fill.

    Args:
        values: what is in the file.
        tensors: the weights by name.
        where: how messages call the model.
        trusted: whether the model's own code may run, which then says what its type is.

    Raises:
        UsageError: see above.
    """
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    kind = values.get("model_type")
    if trusted and "auto_map" in values:
        return
    known = isinstance(kind, str) and kind in CONFIG_MAPPING
    if not known and "auto_map" in values:
        raise UsageError(f"{where} comes with code of its own, which is not run unless trust_remote_code is on")
    if not known:
        raise unknown(f"model_type in the config.json of {where}", kind, CAUSAL)
    classes = {name for entry in CAUSAL.values() for name in ([entry] if isinstance(entry, str) else entry)}
    named = values.get("architectures") or []
    fits = isinstance(named, list) and any(name in classes for name in named if isinstance(name, str))
    if kind not in CAUSAL or (named and not fits):
        what = str(named[0])[:80] if named and isinstance(named, list) else f"model of type {kind}"
        raise UsageError(f"{where} is a {what}, and no causal language model: it cannot continue a prompt")
    for key, value in _walk(values):
        if isinstance(value, str) and any(part in key for part in _CODE) and "/" in value:
            raise UsageError(f"{where}: config.json names code on a hub ({key}: {value[:80]!r}), which is not run")
        if key.endswith(("layer", "layers")) and type(value) is int and value > _LAYERS:
            raise UsageError(f"{where}: config.json asks for {value} in {key}, and there are {len(tensors)} tensors")
    if values.get("transformers_weights"):
        raise UsageError(f"{where}: config.json names a file of weights of its own, which is not read")
    layers = values.get("num_hidden_layers")
    if type(layers) is int and layers > max(1, len(tensors)):
        raise UsageError(f"{where}: config.json asks for {layers} layers, and there are {len(tensors)} tensors")


def skeleton(config: Any, tensors: Mapping[str, Tensor], where: str) -> Any:
    """Build a model on the meta device and match it with the headers of its weights.

    Args:
        config: transformers' configuration of a causal model.
        tensors: the weights, as their files' headers tell of them; none to build without matching.
        where: how messages call the model.

    Raises:
        UsageError: weights that are missing, left over, or of another shape.
    """
    config, cls = _class_of(config)
    with _bounded(max(10 * len(tensors), _MODULES), where), torch.device("meta"):
        if not tensors:
            return cls._from_config(config)
    state = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise UsageError(f"{where}: {name[:80]} is stored as {tensor.dtype}, which takes a quantization_config")
        state[name] = torch.empty(tensor.shape, dtype=DTYPES[tensor.dtype], device="meta")
    with _bounded(max(10 * len(tensors), _MODULES), where):
        model, info = cls.from_pretrained(
            None, config=config, state_dict=state, device_map={"": "meta"},
            output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    check_match(info, where)
    model.tie_weights()  # which are two where the files hold both
    return model


def check_match(info: Mapping[str, Any], where: str) -> None:
    """Refuse a model whose weights did not all find their place; transformers would fill in random ones."""
    if mismatched := sorted(info["mismatched_keys"], key=str):
        name, stored, wanted = mismatched[0]
        shapes = ["x".join(map(str, shape)) or "one number" for shape in (stored, wanted)]
        more = _more(mismatched)
        raise UsageError(f"{where}: {name} is {shapes[0]} in the weights and {shapes[1]} by config.json{more}")
    if missing := sorted(info["missing_keys"]):
        raise UsageError(f"{where}: the weights lack {missing[0]}{_more(missing)}, which config.json asks for")
    spare = sorted(name for name in info["unexpected_keys"] if not _SPARE.match(name))
    if spare:
        raise UsageError(f"{where}: the weights have {spare[0][:80]}{_more(spare)}, for which config.json has no place")
    if faults := [*info.get("error_msgs", ()), *dict(info.get("conversion_errors") or {}).values()]:
        raise UsageError(f"{where}: its weights cannot be converted: {str(faults[0]).splitlines()[0][:200]}")


def _more(found: list[Any]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""


def _class_of(config: Any) -> tuple[Any, Any]:
    """Return the configuration and the class that `AutoModelForCausalLM` takes for it."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    cls = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if isinstance(cls, (list, tuple)):
        by_name = {one.__name__: one for one in cls}
        cls = next((by_name[name] for name in config.architectures or () if name in by_name), cls[0])
    text = config.sub_configs.get("text_config")
    if text is not None and cls.config_class is text:  # the text part of a model that also sees
        config = config.get_text_config()
    return config, cls


@contextmanager
def _bounded(limit: int, where: str) -> Iterator[None]:
    """Stop the making of a model that has more than `limit` modules."""
    made = 0

    def count(*_: Any) -> None:
        nonlocal made
        made += 1
        if made > limit:
            raise UsageError(f"{where}: config.json asks for more than {limit} modules, far more than its weights fill")

    hook = torch.nn.modules.module.register_module_module_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _walk(values: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of nested mappings."""
    for key, value in values.items():
        yield str(key), value
        if isinstance(value, Mapping) and depth < 8:
            yield from _walk(value, depth + 1)

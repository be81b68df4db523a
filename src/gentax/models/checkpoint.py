"""Check a checkpoint before it is loaded: its JSON files, safetensors headers, and the match of configuration and
weights.

Importing this loads no PyTorch, and no weight is read. A header must describe its file exactly: tensors without gap or
overlap, each with as many bytes as its shape takes. The model is built on PyTorch's meta device, where transformers
itself matches names and shapes; a configuration that asks for a hundred thousand layers is refused before or while it
is built.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from gentax.core import UsageError, unknown

TORCH_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32",
    "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
}  # fmt: skip
_LAYERS = 10_000  # of any kind; the deepest models have some hundreds
_MODULES = 10_000  # more than ten for each tensor, and than this, are no model that anybody trained
_CODE = ("attn_implementation", "experts_implementation", "kernel")  # keys that may name code on the hub
_IGNORED_WEIGHTS = re.compile(r"(v_head|value_head)\.")  # left in checkpoints by trainers; not part of the model


def check_config(values: Mapping[str, Any], tensors: Mapping[str, Any], where: str, trusted: bool = False) -> None:
    """Refuse a `config.json` that names no causal model of transformers, or asks for more than the weights fill.

    Args:
        values: the file's content.
        tensors: the weights by name.
        where: the model's name in messages.
        trusted: whether the model's own code may run, which then defines its type.

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


def build_meta_model(config: Any, tensors: Mapping[str, TensorInfo], where: str) -> Any:
    """Build a model on the meta device and match it with the headers of its weights.

    Args:
        config: transformers' configuration of a causal model.
        tensors: the weights' headers; none to build without matching.
        where: the model's name in messages.

    Raises:
        UsageError: weights that are missing, unexpected, or of another shape.
    """
    import torch

    config, cls = _class_of(config)
    with _bounded(max(10 * len(tensors), _MODULES), where), torch.device("meta"):
        if not tensors:
            return cls._from_config(config)
    state = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in TORCH_DTYPES:
            raise UsageError(f"{where}: {name[:80]} is stored as {tensor.dtype}, which takes a quantization_config")
        state[name] = torch.empty(tensor.shape, dtype=getattr(torch, TORCH_DTYPES[tensor.dtype]), device="meta")
    with _bounded(max(10 * len(tensors), _MODULES), where):
        model, info = cls.from_pretrained(
            None, config=config, state_dict=state, device_map={"": "meta"},
            output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    check_loading_info(info, where)
    model.tie_weights()  # which are two where the files hold both
    return model


def check_loading_info(info: Mapping[str, Any], where: str) -> None:
    """Refuse a model with weights that are missing, unexpected or of another shape; transformers would initialise
    them randomly.
    """
    if mismatched := sorted(info["mismatched_keys"], key=str):
        name, stored, wanted = mismatched[0]
        shapes = ["x".join(map(str, shape)) or "one number" for shape in (stored, wanted)]
        more = _more(mismatched)
        raise UsageError(f"{where}: {name} is {shapes[0]} in the weights and {shapes[1]} by config.json{more}")
    if missing := sorted(info["missing_keys"]):
        raise UsageError(f"{where}: the weights lack {missing[0]}{_more(missing)}, which config.json asks for")
    spare = sorted(name for name in info["unexpected_keys"] if not _IGNORED_WEIGHTS.match(name))
    if spare:
        raise UsageError(f"{where}: the weights have {spare[0][:80]}{_more(spare)}, for which config.json has no place")
    if faults := [*info.get("error_msgs", ()), *dict(info.get("conversion_errors") or {}).values()]:
        raise UsageError(f"{where}: its weights cannot be converted: {str(faults[0]).splitlines()[0][:200]}")


def _more(found: list[Any]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""


def _class_of(config: Any) -> tuple[Any, Any]:
    """Return the configuration and the class that `AutoModelForCausalLM` would use."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    cls = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if isinstance(cls, (list, tuple)):
        by_name = {one.__name__: one for one in cls}
        cls = next((by_name[name] for name in config.architectures or () if name in by_name), cls[0])
    text = config.sub_configs.get("text_config")
    if text is not None and cls.config_class is text:  # the text part of a multimodal model
        config = config.get_text_config()
    return config, cls


@contextmanager
def _bounded(limit: int, where: str) -> Iterator[None]:
    """Stop building a model that has more than `limit` modules."""
    import torch

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


WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
JSON_LIMIT = 1 << 26  # bytes of a JSON file that are read; an index of 90,000 tensors has 9 MB
HEADER_LIMIT = 1 << 25  # bytes of a safetensors header; 90,000 tensors take 10 MB
DTYPE_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E5M2FNUZ", "F8_E4M3FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}  # of a number in each format that safetensors knows


class TensorInfo(NamedTuple):
    """A tensor's header in a safetensors file."""

    dtype: str  # as safetensors calls it: `F32`, `BF16` …
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * DTYPE_BITS[self.dtype] // 8


def error_line(error: BaseException) -> str:
    """Return an exception's message on one line, printable and shortened."""
    line = " ".join(str(error).partition("Exception raised from")[0].split())  # PyTorch adds frames of C++
    line = "".join(c if c.isprintable() else "�" for c in line)
    if not line or isinstance(error, (LookupError, AttributeError, TypeError, ArithmeticError)):
        line = f"{type(error).__name__}: {line}".rstrip(": ")
    return line if len(line) <= 300 else f"{line[:299]}…"


def read_json(path: Path, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """Return the JSON object in a file. Raises UsageError for a missing, oversized or other file."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise UsageError(f"{path} has {size / 1e6:.0f} MB; no more than {limit / 1e6:.0f} MB are read")
        content = json.loads(path.read_bytes())
    except RecursionError:
        raise UsageError(f"{path} is nested too deeply") from None
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error_line(error)}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold a JSON object, not {json.dumps(content)[:40]}")
    return content


def read_weight_headers(folder: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a model folder: those of `model.safetensors`, or of the shards in its index.

    Raises:
        UsageError: there are none, the index names a file that is missing or outside the folder, or a header is
            invalid.
    """
    if (folder / WEIGHTS_FILE).exists():
        return read_safetensors_header(folder / WEIGHTS_FILE)
    if not (folder / INDEX_FILE).exists():
        raise UsageError(
            f"{folder} has no {WEIGHTS_FILE} and no {INDEX_FILE}; gentax reads no other format of weights"
            + (" (a .bin file is a pickle, which runs code)" if list(folder.glob("*.bin")) else "")
        )
    placed = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(file, str) for file in placed.values()):
        raise UsageError(f"{folder / INDEX_FILE} has no weight_map of tensors to files")
    found: dict[str, TensorInfo] = {}
    files = sorted(set(placed.values()))
    for file in files:
        if Path(file).name != file or not file.endswith(".safetensors") or "\\" in file:
            raise UsageError(f"{folder / INDEX_FILE} names {file[:80]!r}, which is no .safetensors file of the folder")
        if not (folder / file).is_file():
            raise UsageError(f"{folder} lacks {file}, which {INDEX_FILE} names")
    for file in files:
        for name, tensor in read_safetensors_header(folder / file).items():
            if placed.get(name, file) != file or name in found:
                raise UsageError(f"{folder}: the tensor {name[:80]!r} is in two files")
            found[name] = tensor
    if lacking := [name for name in placed if name not in found]:
        raise UsageError(f"{folder}: {_some(lacking)} not in the file that {INDEX_FILE} says")
    return found


def read_safetensors_header(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a safetensors file by name. Raises UsageError when the header does not fit the file."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size < 8:
                raise UsageError(f"{path} has {size} bytes: it is cut off or no safetensors file")
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                raise UsageError(f"{path} is cut off or no safetensors file: its header would be longer than the file")
            if length > HEADER_LIMIT:
                raise UsageError(f"{path} has a header of {length / 1e6:.0f} MB; {HEADER_LIMIT / 1e6:.0f} MB are read")
            content = json.loads(file.read(length), object_pairs_hook=_unique_keys)
    except RecursionError:
        raise UsageError(f"{path}: its header is nested too deeply") from None
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: its header cannot be read: {error_line(error)}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: its header is no JSON object")
    content.pop("__metadata__", None)
    return _check_layout(path, content, size - 8 - length)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name stands in it twice")
    return made


def _check_layout(path: Path, content: dict[str, Any], room: int) -> dict[str, TensorInfo]:
    """Check that tensors fill `room` bytes without gap or overlap."""
    tensors, spans = {}, []
    for name, entry in content.items():
        shown = f"{path}: the tensor {name[:80]!r}"
        if not isinstance(entry, dict):
            raise UsageError(f"{shown} is not described")
        dtype, shape, span = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
        if dtype not in DTYPE_BITS:
            raise unknown(f"number format of a tensor in {path.name}", dtype, DTYPE_BITS)
        if not _are_sizes(shape) or not _are_sizes(span) or len(span) != 2 or len(shape) > 16:
            raise UsageError(f"{shown} has no sound shape and offsets")
        tensors[name] = TensorInfo(dtype, tuple(shape))
        begin, end = span
        if end - begin != tensors[name].bytes:
            raise UsageError(f"{shown} has {end - begin} bytes, and its shape takes {tensors[name].bytes}")
        spans.append((begin, end, name))
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            raise UsageError(f"{path}: the tensor {name[:80]!r} {'overlaps another' if begin < at else 'leaves a gap'}")
        at = end
    if at != room:
        word = "is cut off" if at > room else "is longer than its tensors"
        raise UsageError(f"{path} {word}: its header tells of {at} bytes of tensors, and there are {room}")
    return tensors


def _are_sizes(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 1 << 62 for n in numbers)


def _some(names: list[str]) -> str:
    """Name a few of many, with the verb."""
    shown = ", ".join(name[:80] for name in names[:2])
    return f"{shown} and {len(names) - 2} more are" if len(names) > 2 else f"{shown} {'are' if names[1:] else 'is'}"

"""Check a checkpoint before it is loaded: JSON files, headers of safetensors and GGUF, configuration against weights.

Importing this loads no PyTorch, and no weight is read. The model is built on PyTorch's meta device, where transformers
itself matches names and shapes; a configuration that asks for far more layers than the weights fill is refused.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gentax.core import UsageError, files, unknown
from gentax.core.imports import require

if TYPE_CHECKING:
    import torch

TORCH_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32",
    "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
}  # fmt: skip
MAX_LAYERS = 10_000  # of any kind; the deepest models have some hundreds
MAX_MODULES = 10_000  # more than ten for each tensor, and than this, are no model that anybody trained
CODE_KEYS = ("attn_implementation", "experts_implementation", "kernel")  # keys that may name code on the hub
IGNORED_WEIGHTS = re.compile(r"(v_head|value_head)\.")  # left in checkpoints by trainers; not part of the model


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
        if isinstance(value, str) and any(part in key for part in CODE_KEYS) and "/" in value:
            raise UsageError(f"{where}: config.json names code on a hub ({key}: {value[:80]!r}), which is not run")
        if key.endswith(("layer", "layers")) and type(value) is int and value > MAX_LAYERS:
            raise UsageError(f"{where}: config.json asks for {value} in {key}, and there are {len(tensors)} tensors")
    if values.get("transformers_weights"):
        raise UsageError(f"{where}: config.json names a file of weights of its own, which is not read")
    layers = values.get("num_hidden_layers")
    if type(layers) is int and layers > max(1, len(tensors)):
        raise UsageError(f"{where}: config.json asks for {layers} layers, and there are {len(tensors)} tensors")


def build_meta_model(config: Any, tensors: Mapping[str, TensorInfo], where: str, trusted: bool = False) -> Any:
    """Build a model on the meta device and match it with the headers of its weights.

    Args:
        config: transformers' configuration of a causal model.
        tensors: the weights' headers; none to build without matching.
        where: the model's name in messages.
        trusted: whether the model's own code may run.

    Raises:
        UsageError: weights that are missing, unexpected, or of another shape.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if not tensors:
        with _bounded(MAX_MODULES, where), torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)
    config, cls = _class_of(config)
    state = meta_tensors(tensors, where)
    with _bounded(max(10 * len(tensors), MAX_MODULES), where):
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
        raise UsageError(f"{where}: {name} is {shapes[0]} in the weights and {shapes[1]} by config.json")
    if missing := sorted(info["missing_keys"]):
        raise UsageError(f"{where}: the weights lack {name_some(missing)}, which config.json asks for")
    spare = sorted(name for name in info["unexpected_keys"] if not IGNORED_WEIGHTS.match(name))
    if spare:
        raise UsageError(f"{where}: the weights have {name_some(spare)}, for which config.json has no place")
    if faults := [*info.get("error_msgs", ()), *dict(info.get("conversion_errors") or {}).values()]:
        raise UsageError(f"{where}: its weights cannot be converted: {str(faults[0]).splitlines()[0][:200]}")


def name_some(names: Sequence[str]) -> str:
    """Name the first of some, and say how many more there are."""
    return str(names[0])[:100] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")


def meta_tensors(tensors: Mapping[str, TensorInfo], where: str) -> dict[str, torch.Tensor]:
    """Return tensors of these shapes and dtypes on the meta device."""
    import torch

    state = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in TORCH_DTYPES:
            raise UsageError(f"{where}: {name[:80]} is stored as {tensor.dtype}, which takes a quantization_config")
        state[name] = torch.empty(tensor.shape, dtype=getattr(torch, TORCH_DTYPES[tensor.dtype]), device="meta")
    return state


def _class_of(config: Any) -> tuple[Any, Any]:
    """Return the configuration and the class that `AutoModelForCausalLM` would use."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    cls = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if isinstance(cls, (list, tuple)):
        by_name = {kind.__name__: kind for kind in cls}
        cls = next((by_name[name] for name in config.architectures or () if name in by_name), cls[0])
    text = config.sub_configs.get("text_config")
    if text is not None and cls.config_class is text:  # the text part of a multimodal model
        config = config.get_text_config()
    return config, cls


@contextmanager
def _bounded(limit: int, where: str) -> Iterator[None]:
    """Stop building a model that has more than `limit` modules."""
    import torch

    built = itertools.count(1)

    def count(*_: Any) -> None:
        if next(built) > limit:
            raise UsageError(f"{where}: config.json asks for more than {limit} modules, far more than its weights fill")

    with torch.nn.modules.module.register_module_module_registration_hook(count):
        yield


def _walk(values: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of nested mappings."""
    for key, value in values.items():
        yield str(key), value
        if isinstance(value, Mapping) and depth < 8:
            yield from _walk(value, depth + 1)


WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
JSON_LIMIT = 1 << 26  # bytes of a JSON file that are read; an index of 90,000 tensors has 9 MB


class TensorInfo(NamedTuple):
    """A tensor's header in a safetensors file."""

    dtype: str  # as safetensors calls it: `F32`, `BF16` …
    shape: tuple[int, ...]


def error_line(error: BaseException) -> str:
    """Return an exception's message on one line, printable and shortened."""
    line = " ".join(str(error).partition("Exception raised from")[0].split())  # PyTorch adds frames of C++
    line = "".join(c if c.isprintable() else "�" for c in line)
    if not line or isinstance(error, (LookupError, AttributeError, TypeError, ArithmeticError)):
        line = f"{type(error).__name__}: {line}".rstrip(": ")
    return line if len(line) <= 300 else f"{line[:299]}…"


def read_json(path: Path, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """Return the JSON object in a file. Raises UsageError for a missing, oversized or other file."""
    content = files.read_json(path, limit)
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold a JSON object, not {json.dumps(content)[:40]}")
    return content


def read_weight_headers(folder: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a model folder: those of `model.safetensors`, or of the shards in its index.

    Raises:
        UsageError: there are none, the index names a file that is missing or outside the folder, or a file is invalid.
    """
    if (folder / WEIGHTS_FILE).exists():
        return read_safetensors_header(folder / WEIGHTS_FILE)
    if not (folder / INDEX_FILE).exists():
        raise UsageError(
            f"{folder} has no {WEIGHTS_FILE} and no {INDEX_FILE}; gentax reads no other format of weights"
            + (" (a .bin file is a pickle, which runs code)" if list(folder.glob("*.bin")) else "")
        )
    weight_map = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(f, str) for f in weight_map.values()):
        raise UsageError(f"{folder / INDEX_FILE} has no weight_map of tensors to files")
    tensors: dict[str, TensorInfo] = {}
    for file in sorted(set(weight_map.values())):
        if Path(file).name != file or not file.endswith(".safetensors") or "\\" in file:
            raise UsageError(f"{folder / INDEX_FILE} names {file[:80]!r}, which is no .safetensors file of the folder")
        tensors |= read_safetensors_header(folder / file)
    return tensors


def read_safetensors_header(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a safetensors file by name. Raises UsageError when it is missing or invalid.

    safetensors itself checks that the header describes the file exactly.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
            return {name: TensorInfo(part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"{path} is no whole safetensors file: {error_line(error)}") from None


@dataclass(frozen=True)
class Gguf:
    """The header of a GGUF file.

    transformers (5.24) dequantizes the blocks into an ordinary model. For most architectures it reads no RoPE scaling,
    and for Gemma no attention scale, so some models would load silently and be wrong: see `correct_gguf_config`.
    """

    metadata: Mapping[str, Any]  # scalars and strings; of an array its length
    tensors: Sequence[str]  # names

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture"))

    def get(self, key: str) -> Any:
        """Return an architecture-specific value such as `rope.scaling.type`, or None."""
        return self.metadata.get(f"{self.architecture}.{key}")


def read_gguf(path: Path) -> Gguf:
    """Read the header of a GGUF file. Raises UsageError for another or a truncated file."""
    gguf: Any = require("gguf", f"{path}, a GGUF file,")

    class Reader(gguf.GGUFReader):
        """Ends where the file ends: past it the package reads nothing, as many times as a false length says."""

        def _get(self, offset: int, dtype: Any, count: int = 1, *order: Any, **more: Any) -> Any:
            values = super()._get(offset, dtype, count, *order, **more)
            if len(values) < count:
                raise ValueError("it says that it is longer than it is")
            return values

    try:
        reader = Reader(path)
        metadata = {name: _value(field) for name, field in reader.fields.items()}
        return Gguf(metadata, tuple(tensor.name for tensor in reader.tensors))
    except Exception as error:  # a broken file makes the reader raise anything
        raise UsageError(f"{path} is no whole GGUF file: {error_line(error)}") from None


def _value(field: Any) -> Any:
    kind, value = field.types[0].name, field.parts[field.data[0] if field.data else -1]
    if kind == "ARRAY":
        return len(field.data)
    return bytes(value).decode("utf-8", "replace") if kind == "STRING" else value[0].item()


def correct_gguf_config(config: Any, header: Gguf, path: Path) -> None:
    """Correct transformers' configuration of a GGUF file.

    Gemma 2 and 3 scale attention by a number that the files do not hold: the head width, or in the 27 B models the
    hidden size over the heads (168 and 144), which llama.cpp detects by the number of layers (46 and 62). transformers
    always takes 256, the head width of the other sizes.

    Raises:
        UsageError: RoPE scaling that transformers does not read from this file.
    """
    if header.architecture in ("gemma2", "gemma3"):
        large = config.num_hidden_layers == {"gemma2": 46, "gemma3": 62}[header.architecture]
        heads = config.num_attention_heads
        config.query_pre_attn_scalar = config.hidden_size // heads if large else config.head_dim
    _check_rope(config, header, path)


def remove_added_tokens(tokenizer: Any, header: Gguf) -> Any:
    """Remove tokens that are not in the file: transformers adds an `<|endoftext|>` to every byte-level tokenizer.

    Its id would be outside the embeddings, as with the GGUF files of Llama 3.
    """
    count = header.metadata.get("tokenizer.ggml.tokens")
    if isinstance(count, int) and max(tokenizer.get_vocab().values(), default=-1) >= count:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < count]
        tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(content))
    return tokenizer


def _check_rope(config: Any, header: Gguf, path: Path) -> None:
    """Refuse a file whose RoPE scaling is not in the configuration; set Gemma 3's linear scaling."""
    kind, factor = header.get("rope.scaling.type"), header.get("rope.scaling.factor")
    scaled = kind not in (None, "none") and factor not in (None, 1.0)
    if not scaled and "rope_freqs.weight" not in header.tensors:
        return
    rope = getattr(config, "rope_parameters", None) or {}
    if header.architecture == "gemma3" and kind == "linear" and "full_attention" in rope:
        rope["full_attention"] |= {"rope_type": "linear", "factor": float(factor)}
        return
    if rope.get("rope_type", "default") == "default":
        how = f"{kind} by {factor:g}" if scaled else "by the tensor rope_freqs"
        raise UsageError(
            f"{path} scales its positions ({how}), which transformers does not read from a GGUF file of "
            f"{header.architecture}: it would play wrongly; name the model's safetensors instead"
        )

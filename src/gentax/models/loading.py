"""Load models and tokenizers, however they are named (see `source.py`).

In order: resolve the name, check configuration and headers, match them on the meta device, check the memory, and only
then read the weights, from safetensors or GGUF; nothing is unpickled.

PEFT adapters are matched with their base in the same way, and merged into its weights, so that the result is an
ordinary model. They are merged in fp32 and rounded stochastically to the dtype of the weights (see `device.py`), since
rounding to nearest would lose much of what a short training adds. Not supported: prompt tuning and the like, which no
weight can hold, and adapters that also changed their base (PiSSA, OLoRA, CorDA, LoftQ) and were not saved as plain
LoRA.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch

from gentax.core import UsageError, unknown
from gentax.core.process import limit_onednn_cache
from gentax.models.checkpoint_check import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    TensorInfo,
    build_meta_model,
    check_config,
    check_loading_info,
    correct_gguf_config,
    error_line,
    meta_tensors,
    name_some,
    read_gguf,
    read_json,
    read_safetensors_header,
    read_weight_headers,
    remove_added_tokens,
)
from gentax.models.device import check_fits_memory, resolve_device, stochastic_round_
from gentax.models.options import ModelOptions
from gentax.models.source import ModelSource, find_model

CONFIG_LIMIT = 1 << 22  # bytes of a config.json that are read
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def load_tokenizer(where: str | Path | ModelSource, options: ModelOptions = ModelOptions()) -> Any:
    """Load the tokenizer of a model; an adapter's own, where it has one.

    Raises:
        UsageError: there is no such model, or its tokenizer cannot be loaded.
    """
    from transformers import AutoTokenizer

    source = find_model(where, options)
    if source.base is not None and not any((source.path / name).exists() for name in TOKENIZER_FILES):
        source = source.base
    path = source.path
    with loading_errors(f"the tokenizer of {source.name}"):
        if source.kind == "gguf":
            with _isolated(path) as file:
                tokenizer = AutoTokenizer.from_pretrained(**file)
            tokenizer = remove_added_tokens(tokenizer, read_gguf(path))
        else:
            trusted = options.trust_remote_code
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trusted, local_files_only=True)
        tokenizer("a")  # some settings that make no sense show here
        return tokenizer


def load_model(where: str | Path | ModelSource, options: ModelOptions = ModelOptions(), tokenizer: Any = None) -> Any:
    """Load a causal model onto its device, in evaluation mode; an adapter is merged into its base.

    Args:
        where: see `find_model`.
        options: how it is loaded.
        tokenizer: checked against the model's embeddings, if given.

    Raises:
        UsageError: there is no such model; its files are invalid or do not match; it is no causal language model; it
            does not fit into memory; an unknown device or dtype; a tokenizer with more tokens than embeddings.
    """
    from transformers import AutoModelForCausalLM

    source = find_model(where, options)
    base, device = source.base or source, resolve_device(options.device)
    limit_onednn_cache()
    with loading_errors(source.name):
        # The progress bar of GGUF files ignores all settings.
        with _opened(base, options) as (config, tensors, arguments), redirect_stderr(io.StringIO()):
            if tensors is not None:
                bare = _meta_model(base, options, config, tensors, arguments["dtype"])
                _check_vocabulary(bare, tokenizer, base.name)
                needed = bare.get_memory_footprint()
                if source.base is not None:
                    needed += check_adapter(source.path, bare, source.name)
            elif source.base is None:
                needed = sum(file.stat().st_size for file in base.path.glob("*.safetensors"))
            else:
                raise UsageError(f"{base.name} is quantised or has its own code: no adapter can be merged into it here")
            check_fits_memory(needed, device, base.name)
            model, info = AutoModelForCausalLM.from_pretrained(
                **arguments,
                config=config,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # which `check_loading_info` refuses with the shapes
                **_placed(device),
            )
        check_loading_info(info, base.name)
        _check_vocabulary(model, tokenizer, base.name)
        if base.kind == "gguf":
            for holder in (model, model.config):  # the dequantized model is an ordinary one, to train and save
                for name in ("hf_quantizer", "quantization_config", "quantization_method", "is_quantized"):
                    vars(holder).pop(name, None)
            model.config.name_or_path = model.name_or_path = str(base.path)
        model = model.to(device)
        if source.base is not None:
            model = merge_adapter(model, source.path, source.name)
        _check_finite(model, source.name)
        ends = model.generation_config.eos_token_id
        if not all(type(end) is int for end in (ends if isinstance(ends, list) else [ends]) if end is not None):
            raise UsageError(f"{source.name}: its eos_token_id is {str(ends)[:80]!r}, which is no id of a token")
    return model.eval()


def load_with_tokenizer(where: str | Path, options: ModelOptions = ModelOptions()) -> tuple[ModelSource, Any, Any]:
    """Return the resolved source, the model and its tokenizer, checked against each other. Raises as `load_model`."""
    source = check_model_files(where, options)
    tokenizer = load_tokenizer(source, options)
    return source, load_model(source, options, tokenizer), tokenizer


def check_model_files(where: str | Path, options: ModelOptions = ModelOptions()) -> ModelSource:
    """Resolve a model and refuse invalid files, an adapter's base too, before a tokenizer is built from some of them.

    Raises UsageError for these, and for an unknown device or dtype.
    """
    resolve_device(options.device)
    source = find_model(where, options)
    base = source.base or source
    with loading_errors(source.name):
        if base.kind == "gguf":
            read_gguf(base.path)
        else:
            _headers(base, options)
    return source


def load_meta_model(where: str | Path, options: ModelOptions = ModelOptions()) -> Any:
    """Return a model without weights, on the meta device, in the dtype it would be loaded in; for an adapter, its base.

    Raises:
        UsageError: there is no such model, or its files are invalid or do not match.
    """
    source = find_model(where, options)
    base = source.base or source
    with loading_errors(base.name), _opened(base, options) as (config, tensors, arguments):
        return _meta_model(base, options, config, tensors or {}, arguments["dtype"])


def runtime(model: Any) -> dict[str, str]:
    """Return a model's device and dtype, as results record them."""
    return {"device": str(model.device), "dtype": str(model.dtype).removeprefix("torch.")}


_Opened = tuple[Any, dict[str, TensorInfo] | None, dict[str, Any]]


@contextmanager
def _opened(source: ModelSource, options: ModelOptions) -> Iterator[_Opened]:
    """Check a checkpoint's files.

    Yields:
        The configuration; the weights' headers by name, empty for GGUF, whose names transformers changes, and None
        where the final form is known only after loading; what `from_pretrained` is told about the files.
    """
    import transformers

    if source.kind != "gguf":
        config, tensors = _headers(source, options)
        own_code = options.trust_remote_code and bool(getattr(config, "auto_map", None))
        quantized = getattr(config, "quantization_config", None) is not None
        yield config, None if own_code or quantized else tensors, {
            "pretrained_model_name_or_path": source.path,
            "use_safetensors": True,
            "trust_remote_code": options.trust_remote_code,
            "local_files_only": True,
            "dtype": options.dtype,
        }  # fmt: skip
        return
    header = read_gguf(source.path)
    with _isolated(source.path) as file:
        with redirect_stderr(io.StringIO()):
            config = transformers.AutoConfig.from_pretrained(**file)
        check_config(config.to_dict() | {"architectures": None}, header.tensors, source.name)
        correct_gguf_config(config, header, source.path)
        dtype = "float32" if options.dtype == "auto" else options.dtype
        arguments = {**file, "dtype": dtype}
        if (kind := getattr(transformers, "GgufConfig", None)) is not None:
            arguments["quantization_config"] = kind(dequantize=True)
        yield config, {}, arguments


def _headers(source: ModelSource, options: ModelOptions) -> tuple[Any, dict[str, TensorInfo]]:
    """Return the checked configuration of a folder, and its weights' headers by name."""
    from transformers import AutoConfig

    path, trusted = source.path, options.trust_remote_code
    values, tensors = read_json(path / "config.json", CONFIG_LIMIT), read_weight_headers(path)
    check_config(values, tensors, source.name, trusted)
    return AutoConfig.from_pretrained(path, trust_remote_code=trusted, local_files_only=True), tensors


def _meta_model(
    source: ModelSource, options: ModelOptions, config: Any, tensors: dict[str, TensorInfo], dtype: str
) -> Any:
    bare = build_meta_model(config, tensors, source.name, options.trust_remote_code)
    return bare if dtype == "auto" else bare.to(getattr(torch, dtype))


@contextmanager
def _isolated(path: Path) -> Iterator[dict[str, Any]]:
    """Link a GGUF file into an empty folder, and yield what `from_pretrained` is told to read it.

    transformers would also read other files near it, and for a bare name that of the working folder instead.
    """
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / path.name
        link.symlink_to(path.resolve())
        yield {"pretrained_model_name_or_path": folder, "gguf_file": str(link), "local_files_only": True}


def _placed(device: torch.device) -> dict[str, Any]:
    """Return the options with which weights are read onto a GPU directly, tensor by tensor."""
    from transformers.integrations import is_deepspeed_zero3_enabled

    return {} if device.type == "cpu" or is_deepspeed_zero3_enabled() else {"device_map": {"": device}}


def _check_vocabulary(model: Any, tokenizer: Any, where: str) -> None:
    """Refuse a tokenizer with a token that the model has no embedding for."""
    if tokenizer is None:
        return
    rows, most = model.get_input_embeddings().weight.shape[0], max(tokenizer.get_vocab().values(), default=-1)
    if most >= rows:
        raise UsageError(f"{where}: its tokenizer has tokens up to {most}, and the model has {rows} embeddings")


def _check_finite(model: Any, where: str) -> None:
    """Refuse weights that are not finite, which would look like a policy that writes nonsense."""
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and weight.itemsize > 1 and weight.numel():
            low, high = torch.aminmax(weight.detach())
            if not (torch.isfinite(low) and torch.isfinite(high)):
                raise UsageError(f"{where}: {name} holds a value that is not finite")


@contextmanager
def loading_errors(where: str) -> Iterator[None]:
    """Silence libraries while loading, and turn any error into a one-line UsageError that names the model.

    Invalid files make transformers, tokenizers, safetensors or PEFT raise anything, panics of Rust included. Interrupts
    pass.
    """
    try:
        with silence_transformers():
            yield
    except (UsageError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except MemoryError:
        raise UsageError(f"cannot load {where}: there is not enough memory") from None
    except BaseException as error:  # Rust's panics are no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if isinstance(error, ZeroDivisionError):
            raise UsageError(f"cannot load {where}: its config.json has a size that is 0") from error
        if "instantiate the backend tokenizer" in str(error):  # four lines of advice on converting slow tokenizers
            raise UsageError(f"cannot load {where}: there is no tokenizer.json or other file of one") from error
        raise UsageError(f"cannot load {where}: {error_line(error)}") from error


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Keep the warnings, log lines and progress bars of transformers off the terminal."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


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
        raise UsageError(f"{where} has {name_some(keys.unexpected_keys)}, for which its model has no place")
    if missing := [name for name in keys.missing_keys if _added(name, wrapped)]:
        raise UsageError(f"{where} lacks {name_some(missing)} for its model: is it for another one?")
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

"""GGUF files: read their header, and correct the configuration that transformers makes of it.

transformers (5.24) dequantizes the blocks into an ordinary model. For most architectures it reads no RoPE scaling, and
for Gemma no attention scale, so some models would load silently and be wrong: these are corrected here, or refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gentax.core import UsageError
from gentax.core.imports import require
from gentax.models.checkpoint_check import error_line


@dataclass(frozen=True)
class Gguf:
    """The header of a GGUF file."""

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
    gguf: Any = require("gguf", f"{path}, a GGUF file,", "gentax[gguf]")

    class Reader(gguf.GGUFReader):  # type: ignore[misc]
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

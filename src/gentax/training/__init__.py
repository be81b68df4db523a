"""Learning from episodes: supervised, by policy gradient, and how the shipped base model is made."""

from typing import Any

from gentax.core.imports import LOCAL, require_modules
from gentax.training.config import TrainConfig

__all__ = ["TrainConfig", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":  # brings PyTorch; a recipe is read and checked without it
        require_modules("training", *LOCAL)
        from gentax.training.run import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Learning from episodes: supervised, by policy gradient, and how the shipped base model is made."""

from gentax.training.recipe import Recipe
from gentax.training.train import train

__all__ = ["Recipe", "train"]

"""The settings of a training run: one documented dataclass, and one for each group of settings in it."""

from gentax.training.recipe.algorithm import Algorithm
from gentax.training.recipe.explore import Explore
from gentax.training.recipe.imitate import Imitate
from gentax.training.recipe.recipe import Recipe
from gentax.training.recipe.retain import Lora, Retain
from gentax.training.recipe.reward import Reward
from gentax.training.recipe.schedule import Phase, Schedule

__all__ = ["Algorithm", "Explore", "Imitate", "Lora", "Phase", "Recipe", "Retain", "Reward", "Schedule"]

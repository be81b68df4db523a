"""Learning rates by the size of the model, for recipes that give none.

Between two sizes for which a rate is known, a straight line over the logarithms of both. One end is the model that
ships with gentax (1.4 M parameters), whose rates were found here on train tasks. The other is arXiv 2601.18217, which
trains 8 B parameters at 1e-6 by RL and at 5e-6 by supervised learning. Adapters learn at ten times the rate of the
weights, the ratio that TRL's documentation gives; at the shipped model's size at the same one, as the project's own
figures were measured.
"""

from __future__ import annotations

import math
from dataclasses import replace

from gentax.training.config import TrainConfig

SMALL, LARGE = 1.4e6, 8e9  # parameters
RL, SFT = (1.5e-4, 1e-6), (5e-4, 5e-6)  # rates at these sizes
ADAPTERS = 10.0
SHIPPED = 2e6  # parameters; up to here the rates are those of the shipped model


def with_rates(recipe: TrainConfig, parameters: int) -> TrainConfig:
    """Return the recipe with `lr` and `imitate.lr` as they will be used.

    Args:
        recipe: rates that it gives stay.
        parameters: those of the model it starts from.
    """
    factor = ADAPTERS if recipe.lora is not None and parameters > SHIPPED else 1.0
    if recipe.lr is None:
        recipe = replace(recipe, lr=_rate(parameters, RL, factor))
    if recipe.imitate is not None and recipe.imitate.lr is None:
        recipe = replace(recipe, imitate=replace(recipe.imitate, lr=_rate(parameters, SFT, factor)))
    return recipe


def _rate(parameters: int, ends: tuple[float, float], factor: float) -> float:
    """Return the rate, rounded to two digits."""
    if parameters <= SHIPPED:
        return ends[0]
    share = min(1.0, math.log(parameters / SMALL) / math.log(LARGE / SMALL))
    return float(f"{factor * ends[0] ** (1 - share) * ends[1] ** share:.2g}")

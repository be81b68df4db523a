"""BabyAI: instructions in a grid world seen from the inside, played through the `minigrid` package."""

from gentax.core.env import Domain
from gentax.domains.babyai.levels import DEFAULT, LEVELS

DOMAIN = Domain(
    name="babyai",
    entry="gentax.domains.babyai.env:BabyAI",
    about="Go to a thing, fetch it, open a door: instructions in a grid world seen from the inside (BabyAI).",
    rules=(
        "Follow the instruction in a world of square cells. Places are counted in cells from you. Actions: turn left, "
        "turn right, go forward, pick up, drop, toggle. Only what is 1 ahead can be picked up or toggled; toggle opens "
        "a door. You have gone to a thing when it is 1 ahead."
    ),
    levels=LEVELS,
    default_level=DEFAULT,
    licence="MIT",
    origin="the minigrid package 3.2 (arXiv 1810.08272), its own levels and bot; told in words",
    target_only=True,
    requires=("minigrid",),
    enable="pip install minigrid",
)

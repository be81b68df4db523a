"""ScienceWorld: thirty kinds of small science tasks in a simulated house, played through the `scienceworld` package."""

import os

from gentax.core.env import Domain
from gentax.domains.sciworld.levels import DEFAULT, LEVELS

DOMAIN = Domain(
    name="sciworld",
    entry="gentax.domains.sciworld.env:SciWorld",
    about="Find, measure, mix, grow: elementary-school science in a simulated house (ScienceWorld, simplified).",
    rules=(
        "You are in a house and act by short commands: look around, inventory, look at X, look in X, open X, "
        "pick up X, move X to Y, use X on Y, wait, focus on X, teleport to ROOM. Rooms: kitchen, bathroom, hallway, "
        "bedroom, living room, workshop, art studio, greenhouse, foundry, outside. A wrong focus ends the episode."
    ),
    levels=LEVELS,
    default_level=DEFAULT,
    licence="Apache-2.0",
    origin="the scienceworld package 1.2.3 (arXiv 2203.07540), its own tasks, folds and scores; simplification 'easy'",
    requires=("scienceworld",),
    enable="pip install scienceworld",
    threads=min(8, os.cpu_count() or 1),
    copies=48,
)

"""Sokoban: push every box onto a target. Small generated rooms with known optimal plans, or rooms from a file."""

from gentax.core.env import Domain
from gentax.domains.sokoban.levels import DEFAULT, LEVELS

DOMAIN = Domain(
    name="sokoban",
    entry="gentax.domains.sokoban.env:Sokoban",
    about="Push every box onto a target in a small room; mistakes cannot be undone.",
    rules=(
        "Push every box onto a target. Positions are row,column; rows grow downward. Everything on the border is wall. "
        "Actions: up, down, left, right. Walking into a box pushes it; a box can never be pulled."
    ),
    levels=LEVELS,
    default_level=DEFAULT,
    licence="Apache-2.0",
    origin="gentax's own generator; the default size and the list of coordinates follow arXiv 2601.18217",
    open_levels=True,
)

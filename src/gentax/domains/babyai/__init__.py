"""BabyAI: instructions in a grid world seen from the inside, played through the `minigrid` package.

The domain's record and its levels: which of the package's own levels each is made of. Their tasks take turns, so any
prefix is a fair sample.

Left out: levels of several instructions in sequence (GoToSeq, Synth, BossLevel), whose verifier keeps a state that the
bot does not know, and those that the bot cannot solve.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gentax.core.env import Domain, Level
from gentax.core.imports import install_command

DEFAULT = "room"
TASKS = 1_000_000  # of each split; every one is made when it is played


class LevelKind(NamedTuple):
    """One of the package's levels: a class of `minigrid.envs.babyai`, and what it is made with."""

    name: str
    settings: Mapping[str, int | bool] = {}


_GO_TO_ONE_OF_FOUR = LevelKind("GoToLocal", {"room_size": 6, "num_dists": 3})
_FOUR_ROOMS = LevelKind("GoTo", {"room_size": 5, "num_rows": 2, "num_cols": 2, "num_dists": 4})

KINDS: Mapping[str, tuple[LevelKind, ...]] = {
    "small": (LevelKind("GoToObj", {"room_size": 6}), _GO_TO_ONE_OF_FOUR, LevelKind("PickupLoc")),
    "room": (_GO_TO_ONE_OF_FOUR, LevelKind("PickupLoc")),
    "local": (LevelKind("GoToLocal"), LevelKind("PickupLoc"), LevelKind("PutNextLocal")),
    "rooms": (_FOUR_ROOMS, LevelKind("OpenDoor"), LevelKind("UnlockLocal")),
    "maze": (LevelKind("GoTo"), LevelKind("Pickup"), LevelKind("Open")),
    "blocked": (LevelKind("UnblockPickup"), LevelKind("UnlockPickup", {"distractors": True})),
}

LEVELS: Mapping[str, Level] = {
    "small": Level(30, "one small room: go to a thing, alone or among four, or pick one up"),
    "room": Level(30, "one small room: go to a thing among four, or pick one up"),
    "local": Level(50, "one room of 6 by 6 cells with nine things: go to one, pick it up, put it next to another"),
    "rooms": Level(80, "four small rooms, or one with doors: find a thing, open or unlock a door"),
    "maze": Level(300, "nine rooms, eighteen things: go to one, pick it up, open a door"),
    "blocked": Level(400, "the thing to pick up is behind others, or behind a locked door"),
}

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
    enable=install_command("gentax[domains]"),
)

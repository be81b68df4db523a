"""ScienceWorld: thirty kinds of small science tasks in a simulated house, played through the `scienceworld` package.

The domain's record, its levels (every task name of the package by itself, and groups of them), and which variation of
which task a (level, split, index) is. Loads neither the package nor a JVM.

Horizons leave room above the longest plans of the expert in a sample of the tasks: 7 steps for
`find-` and `lifespan-`, 33 for most others, up to 148 for inclined planes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from gentax.core.env import Domain, Level, stable_seed
from gentax.core.imports import install_command

DEFAULT = "living"


@cache
def folds() -> Mapping[str, Mapping[str, tuple[int, int]]]:
    """Return task name → split → (first variation, one past the last). The package's folds are unbroken ranges."""
    stored = json.loads((files(__package__) / "folds.json").read_text(encoding="utf-8"))
    return {
        name: {split: (start, stop) for split, (start, stop) in splits.items()}
        for name, splits in stored["folds"].items()
    }


NAMES = tuple(folds())
"""The package's thirty tasks, in its order."""


def _starting(*prefixes: str) -> tuple[str, ...]:
    return tuple(name for name in NAMES if name.startswith(prefixes))


GROUPS: Mapping[str, tuple[str, tuple[str, ...]]] = {  # what they are about, and their tasks
    "living": (
        "find a living thing, an animal or a plant, and put it in a box",
        ("find-living-thing", "find-animal", "find-plant"),
    ),
    "easy": (
        "six kinds that small models can learn: find a thing, find the animal that lives longest or shortest",
        (*_starting("find-"), "lifespan-longest-lived", "lifespan-shortest-lived"),
    ),
    "find": ("find a living thing, a non-living thing, a plant or an animal, and put it in a box", _starting("find-")),
    "lifespan": ("find the animal that lives longest, shortest, or both in turn", _starting("lifespan-")),
    "measure": ("use a thermometer; measure a melting point", _starting("use-thermometer", "measure-")),
    "matter": ("boil, melt or freeze a substance", _starting("boil", "melt", "freeze", "change-")),
    "electricity": ("build a circuit; test what conducts", _starting("power-component", "test-conductivity")),
    "biology": (
        "grow, find, follow and cross plants and animals",
        _starting("grow-", "lifespan-", "identify-", "mendelian-"),
    ),
    "chemistry": ("mix substances and paints", _starting("chemistry-")),
    "forces": ("compare angles and surfaces of inclined planes", _starting("inclined-plane-")),
    "all": ("all thirty kinds", NAMES),
}
"""Groups of tasks; any other level is one task by its name."""

_HORIZONS = {  # the first prefix that fits
    "find-": 20,
    "lifespan-": 20,
    "measure-melting-point-unknown": 150,
    "grow-fruit": 120,
    "inclined-plane-friction-named": 120,
    "inclined-plane-": 250,
    "mendelian-": 200,
    "": 60,
}


def _level(about: str, names: tuple[str, ...]) -> Level:
    horizons = [next(steps for start, steps in _HORIZONS.items() if name.startswith(start)) for name in names]
    return Level(max(horizons), about)


LEVELS: Mapping[str, Level] = {
    **{name: _level(*group) for name, group in GROUPS.items()},
    **{name: _level(f"the package's task {name}", (name,)) for name in NAMES},
}


def names_of(level: str) -> tuple[str, ...]:
    """Return the package's task names that `level` is made of."""
    return GROUPS[level][1] if level in GROUPS else (level,)


# Which variation of which of the package's tasks a (level, split, index) is. Needs no JVM.
#
# The folds are the package's own, stored in `folds.json` (made by `env.build_data`, compared with the package by a
# test). Order: each task's variations are shuffled with a fixed seed and the tasks interleaved in proportion to how
# many they have, so that any prefix of a split is a fair sample of it, and so is an index drawn at random.

SIMPLIFICATION = "easy"  # teleport, open doors and containers, plants that water themselves, no wiring


class Variation(NamedTuple):
    """One of the package's tasks, as the package counts them."""

    name: str
    number: int


def turn_seed(variation: Variation, turn: int) -> int:
    """Return what the simulator's generator is seeded with before the given turn of an episode."""
    return stable_seed("sciworld", *variation, turn) >> 16


@cache
def variations(level: str, split: str) -> tuple[Variation, ...]:
    """Return the variations of `level` in `split`, in the order of their indices."""
    placed = []
    for name in names_of(level):
        start, stop = folds()[name][split]
        numbers = np.random.default_rng(stable_seed("sciworld", name, split)).permutation(np.arange(start, stop))
        # The i-th of n stands at (i + 1/2) / n of the way; the name breaks ties, alike on every machine.
        placed += [((i + 0.5) / len(numbers), name, int(number)) for i, number in enumerate(numbers)]
    return tuple(Variation(name, number) for _, name, number in sorted(placed))


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
    enable=install_command("gentax[domains]"),
    threads=min(8, os.cpu_count() or 1),
    copies=48,
)

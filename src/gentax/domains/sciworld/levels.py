"""The levels: every task name of the package by itself, and groups of them.

Horizons leave room above the longest plans of the expert in a sample of the tasks (see `build.py lengths`): 7 steps for
`find-` and `lifespan-`, 33 for most others, up to 148 for inclined planes.
"""

from __future__ import annotations

from collections.abc import Mapping

from gentax.core.env import Level

NAMES = (
    "boil",
    "melt",
    "freeze",
    "change-the-state-of-matter-of",
    "use-thermometer",
    "measure-melting-point-known-substance",
    "measure-melting-point-unknown-substance",
    "power-component",
    "power-component-renewable-vs-nonrenewable-energy",
    "test-conductivity",
    "test-conductivity-of-unknown-substances",
    "find-living-thing",
    "find-non-living-thing",
    "find-plant",
    "find-animal",
    "grow-plant",
    "grow-fruit",
    "chemistry-mix",
    "chemistry-mix-paint-secondary-color",
    "chemistry-mix-paint-tertiary-color",
    "lifespan-longest-lived",
    "lifespan-shortest-lived",
    "lifespan-longest-lived-then-shortest-lived",
    "identify-life-stages-1",
    "identify-life-stages-2",
    "inclined-plane-determine-angle",
    "inclined-plane-friction-named-surfaces",
    "inclined-plane-friction-unnamed-surfaces",
    "mendelian-genetics-known-plant",
    "mendelian-genetics-unknown-plant",
)
"""The package's thirty tasks, in its order."""

DEFAULT = "living"


def _starting(*prefixes: str) -> tuple[str, ...]:
    return tuple(name for name in NAMES if name.startswith(prefixes))


_EASY = (
    "find-living-thing",
    "find-non-living-thing",
    "find-animal",
    "find-plant",
    "lifespan-longest-lived",
    "lifespan-shortest-lived",
)

GROUPS: Mapping[str, tuple[str, ...]] = {
    "living": ("find-living-thing", "find-animal", "find-plant"),
    "easy": _EASY,
    "find": _starting("find-"),
    "lifespan": _starting("lifespan-"),
    "measure": _starting("use-thermometer", "measure-"),
    "matter": ("boil", "melt", "freeze", "change-the-state-of-matter-of"),
    "electricity": _starting("power-component", "test-conductivity"),
    "biology": _starting("grow-", "lifespan-", "identify-", "mendelian-"),
    "chemistry": _starting("chemistry-"),
    "forces": _starting("inclined-plane-"),
    "all": NAMES,
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


def _horizon(names: tuple[str, ...]) -> int:
    return max(next(steps for start, steps in _HORIZONS.items() if name.startswith(start)) for name in names)


_ABOUT = {
    "living": "find a living thing, an animal or a plant, and put it in a box",
    "easy": "six kinds that small models can learn: find a thing, find the animal that lives longest or shortest",
    "find": "find a living thing, a non-living thing, a plant or an animal, and put it in a box",
    "lifespan": "find the animal that lives longest, shortest, or both in turn",
    "measure": "use a thermometer; measure a melting point",
    "matter": "boil, melt or freeze a substance",
    "electricity": "build a circuit; test what conducts",
    "biology": "grow, find, follow and cross plants and animals",
    "chemistry": "mix substances and paints",
    "forces": "compare angles and surfaces of inclined planes",
    "all": "all thirty kinds",
}

LEVELS: Mapping[str, Level] = {name: Level(_horizon(names), _ABOUT[name]) for name, names in GROUPS.items()} | {
    name: Level(_horizon((name,)), f"the package's task {name}") for name in NAMES
}


def names_of(level: str) -> tuple[str, ...]:
    """Return the package's task names that `level` is made of."""
    return GROUPS.get(level, (level,))

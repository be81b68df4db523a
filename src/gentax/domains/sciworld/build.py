"""Make the data files of this folder: `python -m gentax.domains.sciworld.build`. Needs the package and Java.

Takes plans from the cache and makes the rest, in minutes.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from gentax.core.files import write_json
from gentax.domains.sciworld import DEFAULT, NAMES, SIMPLIFICATION, names_of, variations
from gentax.domains.sciworld.expert import kept_plan
from gentax.domains.sciworld.simulator import Simulator

FOLDER = Path(__file__).parent
SPLITS = {"train": "getVariationsTrain", "validation": "getVariationsDev", "test": "getVariationsTest"}


def read_folds(server: Simulator) -> dict[str, dict[str, list[int]]]:
    """Ask the package for its folds: task name → split → [first variation, one past the last]."""
    folds: dict[str, dict[str, list[int]]] = {}
    for name in NAMES:
        server(("load", name, 0, SIMPLIFICATION, False))
        folds[name] = {}
        for split, method in SPLITS.items():
            numbers = server((method,))[0]
            if numbers != list(range(numbers[0], numbers[-1] + 1)):
                raise ValueError(f"the {split} fold of {name} is no longer an unbroken range")
            folds[name][split] = [numbers[0], numbers[-1] + 1]
    return folds


def main() -> None:
    server = Simulator()  # held to the end, so that the JVM is started once
    write_json(FOLDER / "folds.json", {"scienceworld": version("scienceworld"), "folds": read_folds(server)})
    plans: dict[str, dict[int, tuple[str, ...]]] = {name: {} for name in names_of(DEFAULT)}
    for split in SPLITS:
        for variation in variations(DEFAULT, split):
            plans[variation.name][variation.number] = kept_plan(variation)
    gold = {"scienceworld": version("scienceworld"), "simplification": SIMPLIFICATION, "plans": plans}
    write_json(FOLDER / "gold.json", gold)


if __name__ == "__main__":
    main()

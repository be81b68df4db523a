"""Make the data files of this folder: `python -m gentax.domains.sciworld.build folds|gold|lengths [COUNT]`.

Needs the package and Java. `folds` takes seconds; `gold` takes plans from the cache and makes the rest, in minutes;
`lengths` prints how long the plans of COUNT training variations of each task are, and makes those it lacks.
"""

from __future__ import annotations

import json
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

from gentax.core.files import atomic_file
from gentax.domains.sciworld import DEFAULT, NAMES, SIMPLIFICATION, Variation, names_of, variations
from gentax.domains.sciworld.expert import kept_plan, plan_for
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


def build_folds(server: Simulator) -> None:
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in read_folds(server).items())
    text = f'{{\n "scienceworld": "{version("scienceworld")}",\n "folds": {{\n{rows}\n }}\n}}\n'
    _write("folds.json", text)


def build_gold() -> None:
    plans: dict[str, dict[str, tuple[str, ...]]] = {name: {} for name in names_of(DEFAULT)}
    for split in SPLITS:
        for name, number in variations(DEFAULT, split):
            plans[name][str(number)] = kept_plan(Variation(name, number))
        print(split, {name: len(made) for name, made in plans.items()}, flush=True)
    tasks = []
    for name, made in plans.items():
        rows = ",\n".join(f"   {json.dumps(n)}: {json.dumps(made[n])}" for n in sorted(made, key=int))
        tasks.append(f"  {json.dumps(name)}: {{\n{rows}\n  }}")
    head = f' "scienceworld": "{version("scienceworld")}",\n "simplification": "{SIMPLIFICATION}",\n'
    _write("gold.json", "{\n" + head + ' "plans": {\n' + ",\n".join(tasks) + "\n }\n}\n")


def print_lengths(count: int) -> None:
    for name in NAMES:
        plans = [plan_for(variation) for variation in variations(name, "train")[:count]]
        lengths = [len(plan) for plan in plans if plan] or [0]
        solved = sum(map(bool, plans))
        middle = statistics.median(lengths)
        print(f"{name:50} median {middle:5} max {max(lengths):4} solved {solved}/{len(plans)}", flush=True)


def _write(name: str, text: str) -> None:
    with atomic_file(FOLDER / name) as aside:
        aside.write_text(text, encoding="utf-8")
    print(f"{name}: {len(text)} characters")


def main(arguments: list[str]) -> int:
    server = Simulator()  # held to the end, so that the JVM is started once
    match arguments:
        case ["folds"]:
            build_folds(server)
        case ["gold"]:
            build_gold()
        case ["lengths"] | ["lengths", _]:
            print_lengths(int(arguments[1]) if len(arguments) > 1 else 3)
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Milliseconds to import gentax, beside gymnasium, torch and transformers, each in a fresh process.

    python benchmarks/import_time.py [--repeats 10]

The whole life of `python -c "import …"` is timed, and what Python alone takes is subtracted. `import gentax` defers
what it can, so two rows show what that defers: making an environment, and reaching for `gentax.train`, which loads
torch. One round to fill the disk cache is not counted; the rows of a round come in a random order; medians.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import numpy as np

CODE = {
    "python alone": "pass",
    "import gentax": "import gentax",
    "  … and make Sokoban": "import gentax; gentax.make('sokoban').reset()",
    "  … and gentax.train": "import gentax; gentax.train",
    "import gymnasium": "import gymnasium",
    "import torch": "import torch",
    "import transformers": "import transformers",
}


def seconds(code: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()

    times: dict[str, list[float]] = {name: [] for name in CODE}
    order = np.random.default_rng(0)
    for repeat in range(args.repeats + 1):
        for name in order.permutation(list(CODE)):
            result = seconds(CODE[name])
            if repeat:
                times[name].append(1000 * result)
    alone = statistics.median(times["python alone"])
    print(f"{'':24}{'ms':>8}{'more than python':>18}{'range':>14}")
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{name:24}{middle:8.0f}{middle - alone:18.0f}{f'{min(values):.0f}-{max(values):.0f}':>14}")


if __name__ == "__main__":
    main()

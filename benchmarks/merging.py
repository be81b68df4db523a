"""One model of several experts: success on test tasks of the base, of each expert, and of their mean.

    python benchmarks/learning.py --domains webshop crafting alfworld --seeds 0    # trains the experts
    python benchmarks/merging.py --experts runs/learning/webshop-0 runs/learning/crafting-0 runs/learning/alfworld-0

Every policy plays the same tasks with the same random numbers. `others` is the tax over the domains that no expert was
trained on, with a 95 % interval over tasks; `home` the mean success over the experts' own domains.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

import gentax
from gentax.domains import domains, missing_modules
from gentax.metrics.episode_scores import task_success
from gentax.metrics.tax import tax_report
from gentax.training.forgetting.merge import merge_models
from gentax.training.run_folder import latest_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", nargs="+", type=Path, required=True, help="folders of training runs")
    parser.add_argument(
        "--domains", nargs="+", default=[n for n, record in domains().items() if not missing_modules(record)]
    )
    parser.add_argument("--tasks", type=int, default=128)
    args = parser.parse_args()
    homes = [json.loads((run / "recipe.json").read_text())["source"] for run in args.experts]
    policies = {"base": Path("base")} | {home: latest_model(run) for home, run in zip(homes, args.experts, strict=True)}
    with tempfile.TemporaryDirectory() as scratch:
        experts = [latest_model(run) for run in args.experts]
        policies["mean"] = merge_models("base", experts, "mean", Path(scratch) / "mean")
        base: dict[str, np.ndarray] = {}
        print(f"{'':12}" + "".join(f"{name:>14}" for name in args.domains) + f"{'home':>8}  tax of the others, %")
        for name, folder in policies.items():
            result = gentax.evaluate(folder, args.domains, tasks=args.tasks, stop_if_unreadable=False)
            found = {domain: task_success(result.episodes[domain]) for domain in args.domains}
            base = base or found
            rates = {domain: 100 * np.nanmean(scores) for domain, scores in found.items()}
            away = [domain for domain in args.domains if domain not in homes]
            tax = tax_report("", {d: base[d] for d in away}, {d: found[d] for d in away}).tax
            said = "undefined" if not tax else f"{100 * tax.value:.1f} ({100 * tax.low:.1f} to {100 * tax.high:.1f})"
            home = np.mean([rates[domain] for domain in homes if domain in rates])
            print(
                f"{name:12}" + "".join(f"{rate:14.1f}" for rate in rates.values()) + f"{home:8.1f}  {said}", flush=True
            )


if __name__ == "__main__":
    main()

"""How often 95 % intervals hold the truth, and how often a tax is seen where there is none: simulated studies.

    python benchmarks/coverage.py [--studies 2000] [--seeds 1 2 3 5 8] [--only coverage|type-one|collapse]

A made-up study has D targets; a task's difficulty is normal in logits (standard deviation 1.5) and correlates 0.8
between the policy before and after; training seeds shift the logit by N(0, spread), and a seed meets each task
differently by N(0, 0.5). The truth is the expected rate over tasks and seeds, by quadrature; with one seed it is that
seed's own, since the interval is said to cover tasks only. The functions measured are those that gentax uses.

It prints a table for each number of seeds: the share of intervals that hold the truth, mean, lowest and highest over
rates and spreads, for each number of tasks; then the share of studies of equal policies in which "there is a tax" is
said, with one look and with five, and in which any of eight targets is said to have lost (Holm-corrected); then what no
interval from a few seeds can hold: training that fails altogether now and then.
"""

from __future__ import annotations

import argparse
import itertools
import time
from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from gentax.measure.statistics import Looks, Scores, holm, linear, p_value, success_rate
from gentax.measure.tax import tax

TASKS = (32, 128, 512)
RATES = ((0.02, 0.02), (0.02, 0.06), (0.1, 0.05), (0.5, 0.5), (0.5, 0.4), (0.9, 0.95), (0.98, 0.94), (0.98, 0.98))
FAILING = 0.3  # chance that a run of training fails altogether
SPREADS = (0.0, 0.3, 0.6)  # of training seeds, in logits: 0.6 is 13 points at a rate of 50 %
TARGETS = 4
TASK_SPREAD, MEETING = 1.5, 0.5
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(81)


def expected(centre: np.ndarray, spread: float) -> np.ndarray:
    """Return the success rate of tasks whose logits are normal about `centre`."""
    return expit(np.add.outer(centre, spread * NODES)) @ WEIGHTS / WEIGHTS.sum()


@cache
def centre_of(rate: float, spread: float) -> float:
    """Return the logit about which tasks lie that are solved at `rate` on the whole."""
    return float(brentq(lambda x: expected(np.array(x), spread) - rate, -30, 30))


def simulate(
    rng: np.random.Generator, seeds: int, tasks: int, before: float, after: float, spread: float, targets: int = TARGETS
) -> tuple[Scores, list[float]]:
    """Return the scores of a made-up study, and the true rate after training on each target."""
    init, tuned, truth = {}, {}, []
    own, all_of = np.hypot(TASK_SPREAD, MEETING), np.sqrt(TASK_SPREAD**2 + MEETING**2 + spread**2)
    for target in map(str, range(targets)):
        hard_2K = rng.standard_normal((2, tasks))
        base_K = centre_of(before, TASK_SPREAD) + TASK_SPREAD * hard_2K[0]
        seed_S1 = centre_of(after, all_of) + spread * rng.standard_normal((seeds, 1))
        tuned_SK = seed_S1 + TASK_SPREAD * (0.8 * hard_2K[0] + 0.6 * hard_2K[1])
        tuned_SK = tuned_SK + MEETING * rng.standard_normal((seeds, tasks))
        init[target] = (rng.random(tasks) < expit(base_K)).astype(float)
        tuned[target] = (rng.random((seeds, tasks)) < expit(tuned_SK)).astype(float)
        truth.append(after if seeds > 1 else float(expected(seed_S1[0, 0], own)))
    return Scores.of(init=init, after=tuned), truth


def coverage(rng: np.random.Generator, studies: int, seeds: int) -> None:
    """Print how often the intervals of a rate, a drop and a tax hold the truth."""
    print(f"\n{seeds} training seed{'s' if seeds > 1 else ''}: % of intervals that hold the truth")
    print(f"  {'':10}{'tasks':>6}{'mean':>8}{'lowest':>8}  {'at':24}{'highest':>8}  {'at':24}outside 93 to 97")
    for tasks in TASKS:
        held: dict[str, dict[str, float]] = {"rate": {}, "drop": {}, "tax": {}}
        for (before, after), spread in itertools.product(RATES, SPREADS):
            hits: dict[str, list[bool]] = {name: [] for name in held}
            for _ in range(studies):
                scores, truth = simulate(rng, seeds, tasks, before, after, spread)
                hits["rate"].append(success_rate(scores.roles["after"]["0"]).holds(100 * truth[0]))
                drop = linear(scores, {("init", "0"): 100.0, ("after", "0"): -100.0}, "points")
                hits["drop"].append(drop.holds(100 * (before - truth[0])))
                if (cost := tax(scores, "source")) is not None:  # else undefined: no interval is given
                    hits["tax"].append(cost.holds(1 - sum(truth) / (TARGETS * before)))
            for name, held_or_not in hits.items():
                if len(held_or_not) >= studies / 10:
                    held[name][f"{before:.0%} to {after:.0%}, {spread:g}"] = 100 * float(np.mean(held_or_not))
        for name, found in held.items():
            low, high = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
            below, above = (sum(x < 93 for x in found.values()), sum(x > 97 for x in found.values()))
            print(
                f"  {name:10}{tasks:6}{np.mean(list(found.values())):8.1f}{found[low]:8.1f}  {low:24}{found[high]:8.1f}"
                f"  {high:24}{below} below, {above} above, of {len(found)}",
                flush=True,
            )


def type_one(rng: np.random.Generator, studies: int, seeds: int) -> None:
    """Print how often a tax is seen between a policy and itself."""
    looks = Looks(5)
    print(f"\n{seeds} training seed{'s' if seeds > 1 else ''}: % of studies of equal policies where a tax is seen")
    print(f"  {'rate':>6}{'tasks':>6}{'one look':>10}{'five looks':>12}{'a target lost, of 8, corrected':>32}")
    for rate, tasks in itertools.product((0.02, 0.1, 0.3, 0.5, 0.9), (64, 128, 512)):
        seen = np.zeros(3)
        for _ in range(studies):
            scores, _ = simulate(rng, seeds, tasks, rate, rate, 0.0, targets=8)
            once = tax(scores, "source")
            seen[0] += once is not None and once.low > 0
            for look in range(1, looks.count + 1):
                now = scores.first(dict.fromkeys(scores.roles["init"], looks.tasks(look, tasks)))
                cost = tax(now, "source", looks.level_at(look))
                if cost is not None and cost.low > 0:
                    seen[1] += 1
                    break
            forms = {t: {("init", t): 1.0, ("after", t): -1.0} for t in scores.roles["init"]}
            adjusted = holm({t: p_value(scores, form) for t, form in forms.items()})
            seen[2] += any(p < 0.05 and scores.mean(forms[t]) > 0 for t, p in adjusted.items())
        once, five, target = 100 * seen / studies
        print(f"  {rate:6.0%}{tasks:6}{once:10.2f}{five:12.2f}{target:32.2f}", flush=True)


def collapse(rng: np.random.Generator, studies: int, seeds: int) -> None:
    """Print how often the interval of a tax holds the truth when some seeds lose everything."""
    for tasks in TASKS:
        hits = []
        for _ in range(studies):
            scores, _ = simulate(rng, seeds, tasks, 0.5, 0.5, 0.3)
            kept_S1 = (rng.random((seeds, 1)) >= FAILING).astype(float)
            after = {target: kept_S1 * x for target, x in scores.roles["after"].items()}
            cost = tax(Scores.of(init=scores.roles["init"], after=after), "source")
            hits.append(cost is None or cost.holds(FAILING))
        print(f"  {seeds} seeds, {tasks} tasks: {100 * np.mean(hits):.1f} % hold the truth", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies a setting")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 5, 8])
    parser.add_argument("--only", choices=["coverage", "type-one", "collapse"])
    args = parser.parse_args()
    began = time.time()
    for seeds in args.seeds:
        rng = np.random.default_rng([20260121, seeds])
        if args.only in (None, "coverage"):
            coverage(rng, args.studies, seeds)
        if args.only in (None, "type-one") and seeds <= 3:
            type_one(rng, args.studies, seeds)
        if args.only in (None, "collapse") and seeds > 1:
            print(f"\nWhere a run of training fails altogether with a chance of {FAILING:.0%}, the tax")
            collapse(rng, args.studies, seeds)
    print(f"\n{args.studies} studies a setting, {time.time() - began:.0f} s")


if __name__ == "__main__":
    main()

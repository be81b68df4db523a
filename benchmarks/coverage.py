"""How often 95 % intervals cover the truth, and how often a cost or a gain is claimed where there is none.

    python benchmarks/coverage.py [--studies 2000] [--only choosing|coverage|type-one|collapse]

Two kinds of simulated study, deliberately unlike. On the first the method was **chosen**: task difficulty is
normal in logits, tasks are independent, and each target has a seed effect of its own; margins from the literature are
compared. On the second it is **validated**: rates of seeds are shifted in logits by an effect that all
targets share (or half of it), tasks come in clusters of one to four that share their content, success on a task is
one threshold in a Gaussian copula, so that success before and after correlates from 0.3 to 0.95, there are 4, 8 or 12
targets, and rates lie between 2 and 98 %. The functions measured are those that gentax uses, on many studies at once;
`tests/metrics/test_coverage.py` compares them with `linear_combination`, `tax` and `success_rate`.

With one seed the truth is that seed's own, since its interval covers tasks only.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtri

from gentax.metrics.statistics import InterimAnalyses, TaskClusters, success_rate
from gentax.metrics.statistics.scores import VarianceComponents, margin, pooled, t_quantile, variance_components_of

LEVEL = 0.95
SPREADS = (0.0, 0.3, 0.6)  # of training seeds, in logits: 0.6 is 15 points at a rate of 50 %
TASKS = (32, 128, 512)
FAILING = 0.3  # chance that a run of training fails altogether
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(81)
CHUNK = 12_000_000  # scores drawn at once
FIXED = frozenset({"init"})
# Rates before and after on the targets, which take turns.
RATES = {
    "near 0": ((0.02, 0.02), (0.06, 0.03)),
    "10 to 30 %": ((0.1, 0.1), (0.2, 0.15), (0.3, 0.2), (0.15, 0.2)),
    "all over": ((0.1, 0.08), (0.3, 0.3), (0.5, 0.4), (0.9, 0.85)),
    "50 %": ((0.5, 0.5), (0.5, 0.4)),
    "70 to 90 %": ((0.7, 0.6), (0.9, 0.9)),
    "near 1": ((0.98, 0.98), (0.94, 0.97)),
}
INSIDE = ("10 to 30 %", "all over", "50 %", "70 to 90 %")  # rates of 10 to 90 %


@dataclass(frozen=True)
class Setting:
    """A kind of study."""

    seeds: int
    tasks: int
    targets: int
    rates: tuple[tuple[float, float], ...]
    spread: float
    shared: float = 1.0  # share of a seed effect's variance that all targets have in common
    alike: float = 0.9  # correlation of the latent success of two policies on a task
    clustered: bool = True

    def pairs(self) -> list[tuple[float, float]]:
        return [self.rates[n % len(self.rates)] for n in range(self.targets)]


@dataclass(frozen=True)
class Studies:
    """Many studies of one setting: scores (B, S, K) by role and target, and true rates (B,) after training."""

    init: list[np.ndarray]
    after: list[np.ndarray]
    truth: list[np.ndarray]
    init_rates: list[float]
    clusters: TaskClusters

    def first(self, tasks: int) -> Studies:
        """Return the studies as they are after the first so many tasks."""
        init, after = ([x[..., :tasks] for x in of] for of in (self.init, self.after))
        return replace(
            self, init=init, after=after, clusters=TaskClusters.of(self.clusters.index_K[:tasks].tolist(), tasks)
        )

    def parts(self, forms: list[dict[tuple[str, str], float]]) -> VarianceComponents:
        keys = {key for form in forms for key in form}
        scores = {(r, d): (self.init if r == "init" else self.after)[int(d)] for r, d in keys}
        return variance_components_of(scores, {d: self.clusters for _, d in keys}, forms, FIXED)


def sizes(tasks: int) -> TaskClusters:
    """Return clusters of 1, 2, 3, 4, 1 … tasks."""
    labels = np.repeat(np.arange(tasks), np.resize([1, 2, 3, 4], tasks))[:tasks]
    return TaskClusters.of(labels.tolist(), tasks)


@cache
def centre(rate: float, spread: float) -> float:
    """Return the logit about which the rates of seeds lie whose mean is `rate`."""
    if not spread:
        return float(logit(rate))
    return float(brentq(lambda x: expit(x + spread * NODES) @ WEIGHTS / WEIGHTS.sum() - rate, -30, 30))


def proving(rng: np.random.Generator, studies: int, of: Setting, own: bool | None = None) -> Iterator[Studies]:
    """Yield `studies` studies of the second kind, some at a time.

    The truth is that of the seeds that were drawn where `own`, by default with one seed, and the expected rate
    otherwise.
    """
    own = of.seeds == 1 if own is None else own
    clusters = sizes(of.tasks) if of.clustered else TaskClusters.of(None, of.tasks)
    at_once = max(1, CHUNK // (of.seeds * of.tasks * of.targets))
    for begin in range(0, studies, at_once):
        count = min(at_once, studies - begin)
        common = rng.standard_normal((count, of.seeds))
        init, after, truth = [], [], []
        for before, later in of.pairs():
            alone = rng.standard_normal((count, of.seeds))
            effect = np.sqrt(of.shared) * common + np.sqrt(1 - of.shared) * alone
            rate_BS = expit(centre(later, of.spread) + of.spread * effect)
            content = rng.standard_normal((count, 1, clusters.count), np.float32)[..., clusters.index_K]
            task = rng.standard_normal((count, 1, of.tasks), np.float32)
            # Half of what two policies have in common lies in the content, where contents recur.
            common_K = np.sqrt(of.alike * 0.5) * content + np.sqrt(of.alike * 0.5) * task
            noise = np.float32(np.sqrt(1 - of.alike))
            base = common_K + noise * rng.standard_normal((count, 1, of.tasks), np.float32)
            tuned = common_K + noise * rng.standard_normal((count, of.seeds, of.tasks), np.float32)
            init.append((base < ndtri(before)).astype(float))
            after.append((tuned < ndtri(rate_BS)[..., None]).astype(float))
            truth.append(rate_BS.mean(1) if own else np.full(count, later))
        yield Studies(init, after, truth, [before for before, _ in of.pairs()], clusters)


def choosing(rng: np.random.Generator, studies: int, of: Setting) -> Iterator[Studies]:
    """Yield studies of the first kind: a task's logit is normal, correlates 0.8, and a seed meets each task anew."""
    task_spread, meeting = 1.5, 0.5
    at_once = max(1, CHUNK // (of.seeds * of.tasks * of.targets))
    whole = float(np.sqrt(task_spread**2 + meeting**2 + of.spread**2))
    for begin in range(0, studies, at_once):
        count = min(at_once, studies - begin)
        init, after, truth = [], [], []
        for before, later in of.pairs():
            hard = rng.standard_normal((2, count, 1, of.tasks))
            seed = of.spread * rng.standard_normal((count, of.seeds, 1))
            tuned = centre(later, whole) + seed + task_spread * (0.8 * hard[0] + 0.6 * hard[1])
            tuned = tuned + meeting * rng.standard_normal((count, of.seeds, of.tasks))
            base = centre(before, task_spread) + task_spread * hard[0]
            init.append((rng.random(base.shape) < expit(base)).astype(float))
            after.append((rng.random(tuned.shape) < expit(tuned)).astype(float))
            truth.append(np.full(count, later))
        yield Studies(init, after, truth, [before for before, _ in of.pairs()], TaskClusters.of(None, of.tasks))


def drop_of(studies: Studies, target: int) -> tuple[np.ndarray, VarianceComponents]:
    """Return the drop on one target in each study, and its variance."""
    lost = studies.init[target].mean((1, 2)) - studies.after[target].mean((1, 2))
    return lost, studies.parts([{("init", str(target)): 1.0, ("after", str(target)): -1.0}])


def kept_of(studies: Studies) -> tuple[np.ndarray, np.ndarray, VarianceComponents]:
    """Return Σ after and Σ init in each study, and their joint variance; the tax is 1 - their ratio."""
    after, init = (sum(x.mean((1, 2)) for x in of) for of in (studies.after, studies.init))
    forms = [{(role, str(t)): 1.0 for t in range(len(studies.init))} for role in ("after", "init")]
    return after, init, studies.parts(forms)


def defined(init: np.ndarray, known: VarianceComponents, level: float = LEVEL) -> np.ndarray:
    """Return in which studies there is a tax: Σ init is told apart from 0."""
    return init > known.margin([0.0, 1.0], level)


def within(
    after: np.ndarray, init: np.ndarray, known: VarianceComponents, kept: np.ndarray, half: np.ndarray
) -> np.ndarray:
    """Return whether the interval of `rate_ratio` contains `kept`, given the margin of after - share x init.

    In logarithms where Σ after is told apart from 0; Fieller's otherwise.
    """
    both = np.stack([np.ones_like(kept), -kept], axis=-1)
    logs = np.abs(np.log(np.maximum(after, 1e-9) / np.maximum(init, 1e-9) / kept)) <= half / np.maximum(after, 1e-9)
    fieller = np.abs(after - kept * init) <= known.margin(both, LEVEL)
    return np.where(after > known.margin([1.0, 0.0], LEVEL), logs, fieller)


def holds(studies: Studies) -> dict[str, np.ndarray]:
    """Return for each study whether each interval holds the truth; taxes that are undefined are left out.

    Fieller's interval holds r when |N - r D| is within the margin of N - r D. Rates are done one by one, 200 of them.
    """
    labels = studies.clusters.index_K.tolist()
    pairs = zip(studies.after[0][:200], studies.truth[0][:200], strict=True)
    rate = np.array([success_rate(x, clusters=labels).contains(100 * t) for x, t in pairs])
    last = len(studies.init) - 1
    lost, known = drop_of(studies, last)
    drop = np.abs(lost - (studies.init_rates[last] - studies.truth[last])) <= known.margin([1.0], LEVEL)
    after, init, known = kept_of(studies)
    kept = sum(studies.truth) / sum(studies.init_rates)
    held = within(after, init, known, kept, known.margin(at_estimate(after, init), LEVEL))
    return {"rate": rate, "drop": drop, "tax": held[defined(init, known)]}


def at_estimate(after: np.ndarray, init: np.ndarray) -> np.ndarray:
    """Return (B, 2) the combination after - share x init at the estimated share."""
    return np.stack([np.ones_like(after), -after / np.maximum(init, 1e-9)], axis=-1)


def margins(known: VarianceComponents, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return the margins that the literature has for a sum of variances, the one that is used first."""
    parts_P, seeds = known.variance(weights), known.of_seeds_P
    total, df = pooled(parts_P, known.df_P)
    kinds = [pooled(parts_P[..., kind], known.df_P[kind]) for kind in (~seeds, seeds) if kind.any()]
    z = float(t_quantile(np.inf, LEVEL))
    first = (parts_P**2 / known.df_P).sum(-1) / total**2
    square, cube = ((parts_P**n / known.df_P**2).sum(-1) / total**n for n in (2, 3))
    welch = 1 + (1 + z**2) * (first / 4 - square / 2) + (3 + 5 * z**2 + z**4) / 3 * cube
    welch -= (15 + 32 * z**2 + 9 * z**4) / 32 * first**2
    return {
        "Cochran & Cox 1950": margin(parts_P, known.df_P, seeds, LEVEL),
        "Banerjee 1960": np.sqrt(sum(t_quantile(f, LEVEL) ** 2 * v for v, f in kinds)),
        "Satterthwaite 1946": t_quantile(df, LEVEL) * np.sqrt(total),
        "Welch 1947, 2nd order": z * welch * np.sqrt(total),
        "Cameron et al. 2011, t(least df)": t_quantile(known.df_P.min(), LEVEL) * np.sqrt(total),
    }


def choose(rng: np.random.Generator, studies: int) -> None:
    """Print how often margins from the literature hold a tax, on studies of the first kind."""
    print("\nChoosing: % of taxes held (studies of the first kind, own seed effects), mean and lowest to highest")
    for seeds in (2, 3, 5, 8):
        found: dict[str, list[float]] = {}
        for tasks, rates, spread in itertools.product(TASKS, ("10 to 30 %", "all over", "50 %"), SPREADS):
            of = Setting(seeds, tasks, 4, RATES[rates], spread)
            held: dict[str, list[np.ndarray]] = {}
            for some in choosing(rng, studies, of):
                after, init, known = kept_of(some)
                kept = sum(some.truth) / sum(some.init_rates)
                for name, half in margins(known, at_estimate(after, init)).items():
                    held.setdefault(name, []).append(within(after, init, known, kept, half)[defined(init, known)])
            for name, of_some in held.items():
                found.setdefault(name, []).append(100 * np.concatenate(of_some).mean())
        for name, rows in found.items():
            print(f"  {seeds} seeds  {name:34}{np.mean(rows):6.1f} ({min(rows):.1f} to {max(rows):.1f})", flush=True)


def settings(seeds: int, tasks: int) -> Iterator[tuple[str, Setting]]:
    """Yield settings of the second kind: every rate with every spread; the rest takes turns."""
    turns = itertools.cycle(itertools.product((4, 8, 12), (1.0, 0.5), (0.5, 0.9, 0.98)))
    for _ in range(seeds + tasks):  # begins elsewhere for each number of seeds and tasks
        next(turns)
    for rates, spread in itertools.product(RATES, SPREADS):
        for _ in range(5):  # 18 combinations and 5 have no common divisor: all are met
            targets, shared, alike = next(turns)
        yield rates, Setting(seeds, tasks, targets, RATES[rates], spread, shared, alike)


def coverage(rng: np.random.Generator, studies: int, seeds: int) -> None:
    """Print how often the intervals of a rate, a drop and a tax hold the truth, on studies of the second kind."""
    print(f"\nProving, {seeds} training seed{'s' if seeds > 1 else ''}: % of intervals that hold the truth")
    print(f"  {'':5}{'rates':12}{'tasks':>5}{'mean':>7}{'lowest':>8}  {'at':42}{'highest':>8}  at")
    for tasks in TASKS:
        held: dict[tuple[str, str], dict[str, float]] = {}
        for rates, of in settings(seeds, tasks):
            found: dict[str, list[np.ndarray]] = {"rate": [], "drop": [], "tax": []}
            for some in proving(rng, studies, of):
                for name, ones in holds(some).items():
                    found[name].append(ones)
            label = f"{rates}, {of.spread:g}, {of.targets} targets, {of.shared:g}/{of.alike:g}"
            for name, ones in found.items():
                all_of = np.concatenate(ones)
                if name == "rate" or len(all_of) >= studies / 10:
                    where = "10 to 90 %" if rates in INSIDE else "near 0, 1"
                    held.setdefault((name, where), {})[label] = 100 * float(all_of.mean())
        for (name, where), found_of in sorted(held.items()):
            low, high = min(found_of, key=found_of.__getitem__), max(found_of, key=found_of.__getitem__)
            mean = float(np.mean(list(found_of.values())))
            print(
                f"  {name:5}{where:12}{tasks:5}{mean:7.1f}{found_of[low]:8.1f}  {low:42}{found_of[high]:8.1f}  {high}",
                flush=True,
            )


def claimed(studies: Studies, level: float, gain: bool = False) -> np.ndarray:
    """Return in which studies a cost (or a gain) is claimed: its interval lies on that side of 0."""
    after, init, known = kept_of(studies)
    sign = 1 if gain else -1
    known_after = after > known.margin([1.0, 0.0], level)
    half = known.margin(at_estimate(after, init), level)
    logs = sign * np.log(np.maximum(after, 1e-9) / np.maximum(init, 1e-9)) > half / np.maximum(after, 1e-9)
    fieller = sign * (after - init) > known.margin([1.0, -1.0], level)
    return defined(init, known, level) & np.where(known_after, logs, fieller)


def significant_targets(studies: Studies, gain: bool = False) -> np.ndarray:
    """Return (B, D) which targets are reported to have lost (or gained): Holm's procedure over all of them, at 5 %."""
    count = len(studies.init)
    drops, known = zip(*(drop_of(studies, t) for t in range(count)), strict=True)
    drop_BD = np.stack(drops, axis=-1)
    below = [  # for each step of the procedure, whose p-value is below alpha over what is left
        np.stack(
            [np.abs(d) > k.margin([1.0], 1 - (1 - LEVEL) / (count - j)) for d, k in zip(drops, known, strict=True)]
        )
        for j in range(count)
    ]
    going, significant = np.ones(len(drop_BD), bool), np.zeros_like(drop_BD, bool)
    for j, step_DB in enumerate(below):
        going &= step_DB.sum(0) > j
        significant |= step_DB.T & going[:, None]
    return significant & (drop_BD < 0 if gain else drop_BD > 0)


def type_one(studies: int, all_seeds: list[int], targets: int = 8) -> None:
    """Print how often a cost, or a gain, is claimed where there is none, by the number of seeds and their spread.

    "Training costs" is false where the expected rate is that of the base; "this checkpoint lost" where the checkpoint's
    own rate is no lower than the base's; the same for each target. A false gain ("transfers", "raised") likewise.
    """
    analyses = InterimAnalyses(5)
    print(f"\n% of studies that claim what is not there ({targets} targets; lowest to highest over rates and tasks)")
    print(
        f"  {'seeds':6}{'spread':>7}  {'false':6}{'one analysis':18}{'five (128 tasks)':18}{'a target, corrected':22}"
        "as if of training"
    )
    for seeds, spread in itertools.product(all_seeds, SPREADS):
        rows: dict[bool, list[np.ndarray]] = {False: [], True: []}
        rng = np.random.default_rng([20260122, seeds, int(10 * spread)])
        for rate, tasks in itertools.product((0.1, 0.3, 0.5, 0.9), (128, 512)):
            of = Setting(seeds, tasks, targets, ((rate, rate),), spread)
            counts = {False: np.zeros(4), True: np.zeros(4)}
            for some in proving(rng, studies, of, own=seeds < 3):
                true_BD = np.stack(some.truth, axis=-1)
                for gain, count in counts.items():
                    wrong_BD = true_BD <= rate + 1e-9 if gain else true_BD >= rate - 1e-9
                    mean = true_BD.mean(1)
                    wrong = mean <= rate + 1e-9 if gain else mean >= rate - 1e-9
                    now, at_any = claimed(some, LEVEL, gain), np.zeros(len(true_BD), bool)
                    for n in range(1, analyses.count + 1) if tasks == 128 else ():
                        at_any |= claimed(some.first(analyses.tasks(n, tasks)), analyses.level_at(n), gain)
                    on_targets = (significant_targets(some, gain) & wrong_BD).any(1)
                    count += [(now & wrong).sum(), (at_any & wrong).sum(), on_targets.sum(), now.sum()]
            for gain, count in counts.items():
                rows[gain].append(100 * np.where([True, tasks == 128, True, True], count, np.nan) / studies)
        for gain, of_gain in rows.items():
            low, high = np.nanmin(of_gain, axis=0), np.nanmax(of_gain, axis=0)
            one, five, target, training = (f"{a:.1f} to {b:.1f}" for a, b in zip(low, high, strict=True))
            name = "gain" if gain else "cost"
            print(f"  {seeds:<6}{spread:7g}  {name:6}{one:18}{five:18}{target:22}{training}", flush=True)


def collapse(rng: np.random.Generator, studies: int) -> None:
    """Print how often the interval of a tax holds the truth when some seeds lose everything."""
    print(f"\nWhere a run of training fails altogether with a chance of {FAILING:.0%}, % of taxes held")
    for seeds, tasks in itertools.product((3, 5, 8), TASKS):
        held = []
        for some in proving(rng, studies, Setting(seeds, tasks, 4, ((0.5, 0.5),), 0.3)):
            kept = rng.random((len(some.truth[0]), seeds, 1)) >= FAILING
            after, init, known = kept_of(replace(some, after=[x * kept for x in some.after]))
            true = np.full(len(after), 1 - FAILING)
            held.append(within(after, init, known, true, known.margin(at_estimate(after, init), LEVEL)))
        print(f"  {seeds} seeds, {tasks} tasks: {100 * np.concatenate(held).mean():.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies a setting")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 5, 8], help="training seeds of a study")
    parser.add_argument("--only", choices=["choosing", "coverage", "type-one", "collapse"])
    args = parser.parse_args()
    began = time.time()
    if args.only in (None, "choosing"):
        choose(np.random.default_rng(20261127), args.studies)
    for seeds in args.seeds if args.only in (None, "coverage") else ():
        coverage(np.random.default_rng([20260121, seeds]), args.studies, seeds)
    if args.only in (None, "type-one"):
        type_one(args.studies, args.seeds)
    if args.only in (None, "collapse"):
        collapse(np.random.default_rng(20260123), args.studies)
    print(f"\n{args.studies} studies a setting, {time.time() - began:.0f} s")


if __name__ == "__main__":
    main()

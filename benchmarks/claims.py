"""How often a study supports or refutes a claim where the truth is that both sides are equal.

    python benchmarks/claims.py [--studies 2000]

Simulated studies of two arms that do the same: neither changes success on any domain on average, each training seed
shifts all of its domains together, tasks come in clusters that share their content, and success on a task is one
threshold in a Gaussian copula, so that outcomes of a task correlate between policies. Every claim of a study is then
exactly on its limit, and each that is decided is decided wrongly. Holm's correction is to keep studies with any such
claim below 5 %. With one seed there is no shift: such claims are about the checkpoint.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from gentax.metrics import tax as c
from gentax.metrics.claim_testing import Claim, ClaimOutcome, assess

SOURCE, TARGETS = "home", ("one", "two", "three")
RATES = {"home": 0.3, "one": 0.5, "two": 0.35, "three": 0.25}
HOME_GAIN = 0.3  # of both arms, so that the tax rate is defined
CORRELATION = 0.7  # of the latent outcomes of one task under two policies
CLAIMS = (
    Claim("tax(plain) < 0 %", c.tax("plain", TARGETS)),
    Claim("tax(other) < tax(plain)", c.tax("other", TARGETS), c.tax("plain", TARGETS)),
    Claim("tax(other) on one < tax(plain) on two", c.tax("other", ["one"]), c.tax("plain", ["two"])),
    Claim("tax_rate(other) < tax_rate(plain)",
          c.tax_rate("other", TARGETS, SOURCE), c.tax_rate("plain", TARGETS, SOURCE)),
    Claim("gain(other) > gain(plain)", c.gain("other", SOURCE), c.gain("plain", SOURCE), above=True),
    Claim("drop(plain, one) < 0", c.drop("plain", ["one"])),
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """A kind of study."""

    seeds: int
    tasks: int
    spread: float  # of training seeds, in success (0 to 1)


SETTINGS = (
    Setting(1, 128, 0.0), Setting(3, 64, 0.0), Setting(3, 128, 0.03), Setting(3, 128, 0.1), Setting(5, 128, 0.05),
)  # fmt: skip


def simulate(of: Setting, rng: np.random.Generator) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, list[str]]]:
    """Return the scores of one study by role and domain, and the content of each task."""
    clusters = rng.integers(0, of.tasks // 2, of.tasks)
    shift = {arm: rng.normal(0, of.spread, (of.seeds, 1)) for arm in ("plain", "other")}
    policies: dict[str, dict[str, np.ndarray]] = {"init": {}, "plain": {}, "other": {}}
    for domain, rate in RATES.items():
        content = rng.normal(size=of.tasks)[clusters]
        task = np.sqrt(CORRELATION) * (0.8 * content + 0.6 * rng.normal(size=of.tasks))
        for role, domains in policies.items():
            seeds = 1 if role == "init" else of.seeds
            rates = np.full((seeds, 1), rate) if role == "init" else rate + HOME_GAIN * (domain == SOURCE) + shift[role]
            latent = task + np.sqrt(1 - CORRELATION) * rng.normal(size=(seeds, of.tasks))
            domains[domain] = (latent < ndtri(np.clip(rates, 1e-4, 1 - 1e-4))).astype(float)
    return policies, {domain: [str(n) for n in clusters] for domain in RATES}


@dataclass
class Count:
    """How many of `studies` wrongly decided a claim, each claim on its own and any of them together."""

    studies: int
    supported: np.ndarray  # (claims,) before correction
    refuted: np.ndarray
    any_supported: int = 0  # after correction
    any_decided: int = 0


def count(of: Setting, studies: int, rng: np.random.Generator) -> Count:
    """Simulate studies and count their wrong claims."""
    counted = Count(studies, np.zeros(len(CLAIMS)), np.zeros(len(CLAIMS)))
    for _ in range(studies):
        results = assess(CLAIMS, *simulate(of, rng))
        for n, one in enumerate(results):
            if one.p < 0.05 and one.estimate:
                as_claimed = (one.estimate.value > one.limit) == one.claim.above
                (counted.supported if as_claimed else counted.refuted)[n] += 1
        outcomes = {one.outcome for one in results}
        counted.any_supported += ClaimOutcome.SUPPORTED in outcomes
        counted.any_decided += outcomes != {ClaimOutcome.UNDECIDED}
    return counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000, help="of each kind")
    studies = parser.parse_args().studies
    print(f"{studies} studies of each kind; both sides of every claim are equal. Wrongly supported / refuted, %:")
    for of in SETTINGS:
        start = time.process_time()
        counted = count(of, studies, np.random.default_rng(0))
        each = (time.process_time() - start) / studies / len(CLAIMS)
        print(f"\n{of.seeds} seeds {100 * of.spread:g} points apart, {of.tasks} tasks ({1000 * each:.0f} ms a claim)")
        for n, claim in enumerate(CLAIMS):
            wrong = 100 * counted.supported[n] / studies, 100 * counted.refuted[n] / studies
            print(f"  {claim.text:<40} {wrong[0]:4.1f} / {wrong[1]:.1f}, not corrected")
        together = 100 * counted.any_supported / studies, 100 * counted.any_decided / studies
        print(f"  any of the {len(CLAIMS)}, corrected (Holm): supported {together[0]:.1f}, decided {together[1]:.1f}")


if __name__ == "__main__":
    main()

"""Made-up measurements that look like a real study's, for the tests of the page."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np

from gentax.core import Episode, Outcome, Step, Task
from gentax.metrics.arms import compare_arms
from gentax.metrics.axes import axes
from gentax.metrics.tax import tax_report
from gentax.report import ArmComparison, ArmResult, EpisodeSet, ForecastCheck, LearningCurve, Report

DOMAINS = ("sokoban", "sciworld", "webshop", "alfworld")
INIT = {"sokoban": 0.31, "sciworld": 0.46, "webshop": 0.38, "alfworld": 0.57}
AFTER = {
    ("sokoban", "plain"): {"sokoban": 0.72, "sciworld": 0.33, "webshop": 0.35, "alfworld": 0.49},
    ("sokoban", "distractors"): {"sokoban": 0.68, "sciworld": 0.42, "webshop": 0.37, "alfworld": 0.56},
    ("sciworld", "plain"): {"sokoban": 0.30, "sciworld": 0.71, "webshop": 0.40, "alfworld": 0.62},
    ("webshop", "plain"): {"sokoban": 0.16, "sciworld": 0.28, "webshop": 0.66, "alfworld": 0.34},
}


def results(seeds: int = 3, tasks: int = 128, arms=tuple(AFTER)) -> tuple[ArmResult, ...]:
    rng = np.random.default_rng(0)
    ability = {d: rng.normal(0, 0.12, tasks) for d in DOMAINS}
    init = {d: (rng.random(tasks) < INIT[d] + ability[d]).astype(float) for d in DOMAINS}
    made = []
    for source, arm in arms:
        rates = AFTER[source, arm]
        shift = {d: rng.normal(0, 0.03, (seeds, 1)) for d in DOMAINS}
        after = {d: (rng.random((seeds, tasks)) < rates[d] + ability[d] + shift[d]).astype(float) for d in DOMAINS}
        made.append(ArmResult(tax_report(source, init, after), arm))
    return tuple(made)


@cache
def arms(tasks: int = 128) -> Report:
    """One source, three arms: one that costs, one that does not, and a remedy that touched a target."""
    rng = np.random.default_rng(1)
    before = {d: (rng.random(tasks) < rate).astype(float) for d, rate in INIT.items()}

    def trained(share: float, gain: float) -> dict[str, np.ndarray]:
        """Return success after training that keeps a share of what was solved elsewhere and gains at home."""
        after = {d: x * (rng.random(tasks) < share) for d, x in before.items()}
        home = before["sokoban"]
        return {**after, "sokoban": np.maximum(home, rng.random(tasks) < gain)}

    after = {"imitation": trained(0.4, 0.3), "rl": trained(0.98, 0.3), "imitation+replay": trained(0.95, 0.28)}
    touched = {"imitation": frozenset(), "rl": frozenset(), "imitation+replay": frozenset({"webshop"})}
    random = {d: (rng.random(tasks) < 0.05).astype(float) for d in DOMAINS}
    made = {
        name: tax_report("sokoban", before, scores, touched=touched[name], chance=random)
        for name, scores in after.items()
    }
    pair = {name: after[name] for name in ("imitation", "imitation+replay")}
    compared = compare_arms("sokoban", before, pair, rng, "imitation", touched=frozenset({"webshop"}))
    there = tax_report("sokoban", before, after["imitation"], touched=frozenset({"webshop"})).tax_untouched
    rows = (
        ArmResult(made["imitation"], "imitation"),
        ArmResult(made["rl"], "rl"),
        ArmResult(made["imitation+replay"], "imitation+replay", "imitation", compared["imitation+replay"], there),
    )
    comparison = ArmComparison({"sokoban": compared}, {}, {"imitation+replay": "imitation"})
    measured = made["rl"].tax
    above = replace(measured, low=measured.high, value=measured.high + 1, high=measured.high + 2)
    checks = (ForecastCheck("rl", above, measured, "four sources"),)
    return report(results=rows, comparison=comparison, curves=(), title="gentax study: demo", forecasts=checks)


def curve(source: str, arm: str, seed: int, steps: int = 100) -> LearningCurve:
    rng = np.random.default_rng(seed)
    rows = []
    for step in range(1, steps + 1):
        done = 1 - math.exp(-step / 35)
        row = {
            "step": step,
            "success": float(np.clip(0.3 + 0.4 * done + rng.normal(0, 0.06), 0, 1)),
            "return": 0.25 + 0.5 * done + rng.normal(0, 0.05),
            "length": 11 - 4 * done + rng.normal(0, 0.4),
            "invalid": max(0.0, 0.18 - 0.16 * done + rng.normal(0, 0.015)),
            "entropy": 0.9 - 0.5 * done + rng.normal(0, 0.02),
            "kl": 0.02 * done + abs(rng.normal(0, 0.001)),
        }
        if step % 20 == 0:
            row["test_success"] = 0.3 + 0.38 * done
        rows.append(row)
    return LearningCurve(source, tuple(rows), arm, seed)


def episode(index: int, actions: list[str], outcome: Outcome, domain: str = "sokoban", text: str = "") -> Episode:
    grid = "######\n#_@__#\n#_$__#\n#__.__\n#____#\n######"
    thought = "<think>The box is left of the goal.</think>"
    step = [
        Step(f"{grid}\nYou moved {a or 'nowhere'}. {text}", f"{thought}<action>{a}</action>", a, 0.0, bool(a))
        for a in actions
    ]
    goal = "Push every box onto a goal."
    return Episode(Task(domain, "6x6", "test", index), 0, goal, tuple(step), outcome, "Every box is on a goal.")


def sets(domain: str, before: list[Episode], **after: list[Episode]) -> tuple[EpisodeSet, ...]:
    """The base and each arm on one domain."""
    trained = [EpisodeSet(domain, lambda made=made: made, arm) for arm, made in after.items()]
    return (EpisodeSet(domain, lambda: before), *trained)


def episodes() -> tuple[EpisodeSet, ...]:
    failed = episode(3, ["left", "", "push box", "up"], Outcome.FAILURE)
    solved = episode(3, ["left", "down", "right"], Outcome.SUCCESS)
    desk = episode(9, ["go to desk"], Outcome.SUCCESS, "alfworld")
    lost = episode(9, ["down", "down"], Outcome.FAILURE, "alfworld")
    return (*sets("sokoban", [failed], plain=[solved]), *sets("alfworld", [desk], plain=[lost]))


@cache
def domain_axes(domain: str, richness: int, length: int):
    rng = np.random.default_rng(richness)
    made = []
    for i in range(48):
        n = int(np.clip(rng.normal(length, 3), 1, 50))
        steps = tuple(
            Step("a box, " * int(rng.normal(richness, richness / 8) / 7), "x", "x", 0.0, True) for _ in range(n)
        )
        outcome = Outcome.SUCCESS if rng.random() < INIT[domain] else Outcome.FAILURE
        made.append(Episode(Task(domain, "base", "test", i), 0, "", steps, outcome))
    prompts = lambda e: ["rules " * 100 + s.observation for s in e.steps]  # noqa: E731
    return axes(domain, made, 50, prompts, str.split, [length * 0.6, length * 0.7, length * 0.65])


def report(**changes) -> Report:
    settings = {"recipe": {"steps": 100, "group": 8, "kl": 0.01}, "play": {"context": "window(2)", "temperature": 0.4}}
    values = {
        "title": "What RL on three domains cost elsewhere",
        "about": "Three sources, four targets, three training seeds; a model of 1.2 M parameters on two CPU cores.",
        "results": results(),
        "domains": DOMAINS,
        "curves": tuple(
            curve(s, a, seed) for s, a in (("sokoban", "plain"), ("webshop", "plain")) for seed in (0, 1, 2)
        ),
        "axes": tuple(
            domain_axes(d, r, n)
            for d, r, n in (("sokoban", 390, 14), ("sciworld", 2600, 31), ("webshop", 1500, 9), ("alfworld", 700, 24))
        ),
        "episodes": episodes(),
        "settings": settings,
        "versions": {"gentax": "0.1.0", "torch": "2.13.0", "python": "3.12.4"},
        "command": "gentax study run studies/four.yaml --out runs/four",
        "made": "21 November 2026",
        "seconds": 7384.0,
    }
    return Report(**(values | changes))


def short(**changes) -> Report:
    """A report of one result, with nothing to draw but that: for what the words and tables say."""
    one = {"results": results(seeds=1, tasks=32, arms=(("sokoban", "plain"),))}
    return report(**(one | {"curves": (), "axes": (), "episodes": ()} | changes))

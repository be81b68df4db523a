"""What RL costs a pretrained model elsewhere: warm-up, GRPO with one or more seeds, and every policy on every domain.

As in arXiv 2601.18217, at whatever size the time allows: the model is first warmed up by imitation on experts'
state-action pairs (SciWorld : ALFWorld : WebShop = 19 : 3 : 1, those of them that are installed), then trained by GRPO
on one source; both with LoRA. The same test tasks are played by the model as it came, warmed up and trained.

Everything done is kept in a folder and not done again: evaluations domain by domain (whole episodes), training by its
own checkpoints. When the time is up, what is running is stopped at the next safe place, and the next call goes on.

Used by `real_model.py` and `gpu_runbook.py`; it is no script.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from model_rates import play

import gentax
from gentax.core import UsageError
from gentax.core.episode import read_episodes, write_episodes
from gentax.core.files import write_json
from gentax.domains import domain, domains, missing_modules
from gentax.metrics.episode_scores import error_free_scores, task_success
from gentax.metrics.statistics import Estimate, success_rate
from gentax.metrics.tax import TaxReport, tax_report
from gentax.models.options import ModelOptions
from gentax.policies.local import LocalPolicy, load_local_policy
from gentax.rollouts import RolloutConfig
from gentax.training.config import LoraConfig, SFTConfig, TrainConfig

# A policy plays with its adapters merged. In bf16 they would be rounded, which is right on average but adds noise of
# the size of a short run's changes to single weights.
DTYPE = "float32"
DATAMIX = {"sciworld": 19.0, "alfworld": 3.0, "webshop": 1.0}  # the paper's, by state-action pairs
BASE, WARM = "base", "warmed up"
CLOCK = "seconds.json"  # in a run's folder: how long it took, in all its parts
EVALUATING = 0.45  # share of the time; of the rest half is for the warm-up, and GRPO gets what is left then
PAIR_TOKENS = 600  # of a prompt and its reply, about: few-shot examples, rules, and what is admissible
PAIR_S = 0.05  # seconds of an expert's step, most of which is SciWorld's engine
MOST = {"tasks": 128, "pairs": 4000, "steps": 150}
LEAST = {"tasks": 8, "pairs": 64, "steps": 2}


class TimeIsUp(Exception):
    """What is left must wait for the next call."""


@dataclass(frozen=True)
class Plan:
    """What is done. The first call settles it, and later ones go on with it."""

    model: str
    source: str
    domains: tuple[str, ...]
    mix: Mapping[str, float]
    seeds: int
    groups: int  # a step's
    group: int  # episodes in each
    play: Mapping[str, Any]  # of `RolloutConfig`
    tasks: int  # of each domain
    seconds: float  # for all of it
    learned_per_s: float  # tokens
    pairs: int = 0  # of the warm-up; 0 until the base has been played
    steps: int = 0  # of GRPO; 0 until the warmed-up policy has been played, whose episodes are others

    @property
    def how(self) -> RolloutConfig:
        return RolloutConfig(**self.play)

    def with_pairs(self, base_s: float) -> Plan:
        """Return the plan with as many pairs as half of the time leaves, between `LEAST` and `MOST`.

        Args:
            base_s: the seconds that the base took on all domains.
        """
        left = self.seconds - (2 + self.seeds) * base_s
        return replace(self, pairs=within("pairs", left / 2 / (PAIR_S + PAIR_TOKENS / self.learned_per_s)))

    def with_steps(self, spent: float, played: Mapping[str, Mapping[str, float]]) -> Plan:
        """Return the plan with as many steps as the time leaves, between `LEAST` and `MOST`.

        Args:
            spent: the seconds of all that was done so far.
            played: what playing each domain took the warmed-up policy (`model_rates.Played.figures`).
        """
        of = played[self.source]
        tokens = (of["tokens_read"] + of["tokens_written"]) / self.learned_per_s
        step = self.groups * self.group * (of["seconds"] + tokens) / of["episodes"]
        left = self.seconds - spent - self.seeds * sum(one["seconds"] for one in played.values())
        return replace(self, steps=within("steps", left / (self.seeds * step)))


def within(what: str, wanted: float) -> int:
    """Return a whole number of `what` between the least and the most that there should be."""
    return int(min(max(wanted, LEAST[what]), MOST[what]))


def installed(names: Sequence[str] | None = None) -> list[str]:
    """Return those of the named domains, all when None, that can run here."""
    return [name for name in names or domains() if not missing_modules(domain(name))]


def datamix(source: str) -> dict[str, float]:
    """Return the weights of the paper's warm-up, of the domains that are installed; the source where none is."""
    return {name: DATAMIX[name] for name in installed(list(DATAMIX))} or {source: 1.0}


class Study:
    """The stages, and what came of them.

    Args:
        folder: where everything is kept.
        plan: what to do, or a function that makes it; not asked for where `folder` has one.
        options: how models are loaded.
        deadline: when to stop, by the monotonic clock; never when None.
        say: told what is being done.
    """

    def __init__(
        self,
        folder: Path,
        plan: Callable[[], Plan],
        options: ModelOptions,
        deadline: float | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder, self.options, self.deadline, self.say = folder, options, deadline, say
        kept = self.folder / "plan.json"
        if not kept.is_file():
            write_json(kept, asdict(plan()))
        values = json.loads(kept.read_text())
        self.plan = Plan(**(values | {"domains": tuple(values["domains"])}))

    def run(self) -> None:
        """Do what is not done yet. Raises TimeIsUp where the deadline comes first."""
        self.evaluate(BASE, lambda: self.plan.model)
        if not self.plan.pairs:
            self._settle(self.plan.with_pairs(self._seconds(BASE)))
        plan = self.plan
        warmed = self.folder / "warm-up"
        warm = TrainConfig(
            model=plan.model,
            source=plan.source,
            max_steps=0,
            rollout=plan.how,
            sft=SFTConfig(mixture=dict(plan.mix), max_pairs=plan.pairs),
            **self._common(0),
        )
        self.evaluate(WARM, lambda: self.train(warm, warmed))
        if not plan.steps:
            spent = self._seconds(BASE) + _trained_s(warmed) + self._seconds(WARM)
            self._settle(plan := plan.with_steps(spent, self._figures(WARM)))
        for seed in range(plan.seeds):
            config = TrainConfig(
                model=str(self.train(warm, warmed)),
                source=plan.source,
                max_steps=plan.steps,
                tasks_per_step=plan.groups,
                num_generations=plan.group,
                rollout=RolloutConfig(**{**plan.play, "temperature": 1.0}),
                **self._common(seed),
            )
            self.evaluate(trained(seed), lambda r=config, s=seed: self.train(r, self.folder / f"grpo-{s}"))

    def _settle(self, plan: Plan) -> None:
        self.plan = plan
        write_json(self.folder / "plan.json", asdict(plan))

    def _figures(self, who: str) -> dict[str, dict[str, float]]:
        """Return what playing each domain took a policy that has played all of them."""
        return {name: json.loads(self._kept(who, name).read_text()) for name in self.plan.domains}

    def _seconds(self, who: str) -> float:
        return sum(of["seconds"] for of in self._figures(who).values())

    def _common(self, seed: int) -> dict[str, Any]:
        return {"lora": LoraConfig(), "seed": seed, "eval_steps": 0, "dtype": self.options.dtype}

    def evaluate(self, who: str, model: Callable[[], str | Path]) -> None:
        """Play a policy on the test tasks of each domain on which it has not played yet."""
        policy: LocalPolicy | None = None
        for name in self.plan.domains:
            if self._kept(who, name).is_file():
                continue
            self._in_time()
            policy = policy or load_local_policy(model(), self.options)
            self._in_time()
            self.say(f"{who}: {self.plan.tasks} test tasks of {name}")
            done = play(policy, name, self.plan.tasks, self.plan.how)
            write_episodes(self._kept(who, name).with_suffix(".jsonl.gz"), done.episodes)
            write_json(self._kept(who, name), done.figures())

    def train(self, config: TrainConfig, out: Path) -> Path:
        """Train, or go on with it; return the model folder."""
        began = told = time.monotonic()
        asked = False

        def on_row(row: Mapping[str, float]) -> None:
            nonlocal told, asked
            if "sft_step" in row:
                with (out / "imitation.jsonl").open("a") as file:
                    file.write(json.dumps(dict(row)) + "\n")
            if time.monotonic() - told > 20:
                told = time.monotonic()
                shown = ", ".join(f"{k} {row[k]:.4g}" for k in ("success", "loss", "kl", "left_s") if k in row)
                self.say(f"  {out.name}: step {row.get('sft_step', row.get('step')):.0f}, {shown}")
            if not asked and self.deadline is not None and time.monotonic() > self.deadline:
                asked = True  # once: a second one would not wait for the checkpoint
                signal.raise_signal(signal.SIGINT)  # as Ctrl-C: the run keeps a checkpoint and stops

        self._in_time()
        if not (out / "done.json").is_file():
            self.say(f"training {out.name}")
        try:
            folder = gentax.train(config, out, on_row, device=self.options.device)
        except KeyboardInterrupt:
            if self.deadline is None or time.monotonic() < self.deadline:
                raise
            raise TimeIsUp from None
        finally:
            if out.is_dir() and time.monotonic() - began > 1:  # a finished run takes no time
                write_json(out / CLOCK, _trained_s(out) + time.monotonic() - began)
        return folder

    def _in_time(self) -> None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TimeIsUp

    def _kept(self, who: str, name: str) -> Path:
        folder = self.folder / "played"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{who.replace(' ', '-')}.{name.replace(':', '-')}.json"

    # What came of it.

    def scores(self, who: str) -> dict[str, np.ndarray]:
        """Return a policy's success on each test task of the domains it has played on; NaN for errors."""
        files = {name: self._kept(who, name).with_suffix(".jsonl.gz") for name in self.plan.domains}
        return {name: task_success(read_episodes(file)) for name, file in files.items() if file.is_file()}

    def figures(self) -> dict[str, Any]:
        """Return the plan, and all that there is so far: success, taxes, seconds."""
        plan = self.plan
        scores = {BASE: self.scores(BASE), WARM: self.scores(WARM)}
        seeds = [self.scores(trained(seed)) for seed in range(plan.seeds)]
        whole = [of for of in seeds if len(of) == len(plan.domains)]
        if whole:
            scores[f"GRPO on {plan.source}"] = {name: np.stack([of[name] for of in whole]) for name in plan.domains}
        found: dict[str, Any] = {"plan": asdict(plan), "seeds": len(whole), "success": {}, "played": {}, "trained": {}}
        for who, of in scores.items():
            found["success"][who] = {name: _rate(x).to_json() for name, x in of.items()}
        for who in (BASE, WARM, *map(trained, range(plan.seeds))):
            files = {name: self._kept(who, name) for name in plan.domains}
            found["played"][who] = {n: json.loads(file.read_text()) for n, file in files.items() if file.is_file()}
        for out in (self.folder / "warm-up", *(self.folder / f"grpo-{seed}" for seed in range(plan.seeds))):
            if (out / "recipe.json").is_file():
                found["trained"][out.name] = _training(out)
        complete = {who: of for who, of in scores.items() if len(of) == len(plan.domains)}
        found["tax"] = {
            f"{after} beside {before}": _taxes(complete[before], complete[after], plan)
            for before, after in ((BASE, WARM), (WARM, f"GRPO on {plan.source}"), (BASE, f"GRPO on {plan.source}"))
            if before in complete and after in complete
        }
        return found


def trained(seed: int) -> str:
    """Return what the policy of a training seed is called."""
    return f"GRPO seed {seed}"


def _rate(scores: np.ndarray) -> Estimate:
    kept, _ = error_free_scores({"success": {"": scores}}, max_error_share=1.0)
    return success_rate(kept.roles["success"][""])


def _taxes(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], plan: Plan) -> dict[str, Any]:
    """Return the tax over all targets, and over those that no training has touched."""
    untouched = [name for name in before if name not in plan.mix]
    found = {}
    for which, names in (("all", list(before)), ("untouched", [*untouched, plan.source])):
        targets = [name for name in dict.fromkeys(names) if name != plan.source]
        if targets and (which == "all" or len(untouched) < len(before)):
            wanted = [*targets, plan.source]
            report = tax_report(plan.source, {n: before[n] for n in wanted}, {n: after[n] for n in wanted})
            found[which] = report.to_json() | {"summary": summary(report)}
    return found


def summary(report: TaxReport) -> str:
    """Say in a line what a report has: ΔID, tax, tax rate, or why there is none."""
    parts = []
    for key, name, scale, unit in (
        ("delta_id", "ΔID", 1, " points"),
        ("tax", "tax", 100, " %"),
        ("tax_rate", "tax rate", 1, ""),
    ):
        estimate = getattr(report, key)
        if not estimate:
            parts.append(f"{name} {estimate}")
        else:
            value, low, high = (scale * x for x in (estimate.value, estimate.low, estimate.high))
            parts.append(f"{name} {value:+.1f}{unit} ({low:+.1f} to {high:+.1f})")
    return ", ".join(parts)


def _trained_s(out: Path) -> float:
    clock = out / CLOCK
    return float(json.loads(clock.read_text())) if clock.is_file() else 0.0


def _training(out: Path) -> dict[str, Any]:
    """Return what a run's rows come to."""
    steps, imitated = (_lines(out / name) for name in ("metrics.jsonl", "imitation.jsonl"))
    config = json.loads((out / "recipe.json").read_text())
    sft = config["sft"] or {}
    found: dict[str, Any] = {"steps": len(steps), "lr": sft.get("learning_rate") or config["learning_rate"]}
    if (out / CLOCK).is_file():
        found["seconds"] = _trained_s(out)
    if imitated:
        found["loss"] = [imitated[0]["loss"], imitated[-1]["loss"]]
    if steps:
        found["success"] = [row["success"] for row in steps]
        found["invalid"] = [row["invalid"] for row in steps]
        for key in ("play_s", "learn_s", "tokens"):
            found[f"{key} a step"] = float(np.mean([row[key] for row in steps]))
    return found


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def table(figures: Mapping[str, Any]) -> str:
    """Write the figures of a study for a person."""
    plan = figures["plan"]
    lines = [
        f"model {plan['model']}; warm-up on {plan['pairs']} pairs of {_mix(plan['mix'])}; GRPO on {plan['source']}, "
        f"{plan['steps']} steps of {plan['groups']} x {plan['group']} episodes, {figures['seeds']} of {plan['seeds']} "
        f"seeds; {plan['tasks']} test tasks a domain; {plan['play']['context']}",
        "",
        f"{'success %':22}" + "".join(f"{name + ('*' if name in plan['mix'] else ''):>21}" for name in plan["domains"]),
    ]
    for who, of in figures["success"].items():
        cells = (_cell(of[name]) if name in of else "-" for name in plan["domains"])
        lines.append(f"{who:22}" + "".join(f"{cell:>21}" for cell in cells))
    lines += ["* in the warm-up's mixture; 95 % intervals over tasks, and over seeds where there are several", ""]
    for what, kinds in figures["tax"].items():
        lines += [f"{what}, {which} targets: {report['summary']}" for which, report in kinds.items()]
    for out, facts in figures["trained"].items():
        said = [f"{facts['seconds'] / 60:.1f} min"] if "seconds" in facts else []
        said += [f"learning rate {facts['lr']:g}"] if facts["lr"] else []
        if "loss" in facts:
            said.append(f"loss {facts['loss'][0]:.2f} to {facts['loss'][1]:.2f} nats a token")
        if "success" in facts:
            said.append("success " + " ".join(f"{value:.2f}" for value in _thinned(facts["success"])))
            said.append(f"{facts['play_s a step']:.1f} s to play and {facts['learn_s a step']:.1f} s to learn a step")
        lines.append(f"{out}: {', '.join(said)}")
    return "\n".join(lines)


def _thinned(values: Sequence[float], most: int = 10) -> list[float]:
    return [values[int(i)] for i in np.unique(np.linspace(0, len(values) - 1, most).astype(int))]


def _mix(mix: Mapping[str, float]) -> str:
    return f"{' : '.join(mix)} = {' : '.join(f'{weight:g}' for weight in mix.values())}"


def _cell(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.1f} ({estimate['low']:.1f}-{estimate['high']:.1f})"


def check_source(source: str, names: Sequence[str]) -> None:
    """Refuse a source that is not evaluated on."""
    if source not in names:
        raise UsageError(f"the source {source} must be one of the domains evaluated on: {', '.join(names)}")

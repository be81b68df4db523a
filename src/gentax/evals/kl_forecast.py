"""The tax of a policy that is trained already, without an episode on any target: `gentax tax --forecast-only`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gentax.core.progress import is_shown, status
from gentax.evals.divergence import forward_kl, same_tokens
from gentax.evals.evaluate import tasks_of
from gentax.metrics.forecast.fit import Fit, Forecast, read_fit
from gentax.metrics.forecast.training_runs import MOVED
from gentax.metrics.statistics import Estimate
from gentax.metrics.verdict import number
from gentax.policies import Policy
from gentax.rollouts import RolloutConfig, rollout

FIT = "sources"
TASKS = 64
SPLIT = "train"  # a forecast must not look at what it will be checked on


@dataclass(frozen=True)
class MovedForecast:
    """How far a policy has moved on its source, and the tax to expect of that."""

    source: str
    kl: Estimate  # nats per action
    forecast: Forecast
    fit: Fit
    base: str  # the policy it moved from

    def sentences(self) -> list[str]:
        """Return the forecast in a sentence, what it rests on in another, and what limits it where it has a value."""
        kl, tax = self.kl, self.forecast.tax
        moved = (
            f"KL from the base on {self.source}: {kl.value:.3f} nats an action (95 % interval {kl.low:.3f} to "
            f"{kl.high:.3f}, {kl.n} {SPLIT} tasks)."
        )
        if tax is None:
            return [f"No forecast: {self.forecast.why}.", moved]
        if not self.forecast.informative:
            said = (
                f"No forecast: in fit {self.fit.name!r} the KL does not predict the tax ({self.forecast.why}); "
                "measure it with `gentax tax` without --forecast-only."
            )
            return [said, moved]
        value, low, high = (number(100 * x) for x in (tax.value, tax.low, tax.high))
        said = f"Forecast tax on the targets of fit {self.fit.name!r}: {value} % (95 % interval {low} to {high})."
        limits = [f"the fit's runs had {self.fit.steps} steps"]
        if self.base != self.fit.base:
            limits.append(f"they started from {self.fit.base!r}, not {self.base!r}")
        if self.forecast.outside:
            limits.append("this KL lies outside their range (an extrapolation)")
        return [said, f"{moved[:-1]}; {self.forecast.why}.", f"Limits: {'; '.join(limits)}."]

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "kl": self.kl.to_json(),
            "fit": self.fit.name,
            **self.forecast.to_json(),
            "sentences": self.sentences(),
        }


def moved(
    base: Policy,
    tuned: Policy,
    source: str,
    level: str | None,
    play: RolloutConfig,
    seed: int = 0,
    tasks: int = TASKS,
    progress: bool | None = None,
) -> Estimate:
    """Return the forward KL from base to tuned on states that the base meets on `tasks` train tasks of `source`.

    Raises:
        UsageError: an unknown domain or level, and what `forward_kl` refuses.
    """
    same_tokens(base, tuned)  # before anything is played
    listed = tasks_of({source: level}, tasks, SPLIT)[source]
    episodes = rollout(base, listed, play=replace(play, temperature=1.0), seed=seed, progress=progress)
    if is_shown(progress):
        status("  scoring these episodes with both policies")
    return forward_kl(base, tuned, episodes)


def forecast_of(
    base: Policy,
    tuned: Policy,
    source: str,
    level: str | None = None,
    *,
    play: RolloutConfig | None = None,
    seed: int = 0,
    fit: str | Fit = FIT,
    progress: bool | None = None,
) -> MovedForecast:
    """Forecast the tax of `tuned` from its KL from `base` on its source.

    Raises:
        UsageError: see `moved` and `read_fit`.
    """
    known = fit if isinstance(fit, Fit) else read_fit(fit)
    kl = moved(base, tuned, source, level, play or RolloutConfig(), seed, progress=progress)
    return MovedForecast(source, kl, known.forecast_moved({MOVED[0]: kl.value}, MOVED), known, base.name)

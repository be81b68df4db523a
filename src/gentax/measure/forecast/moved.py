"""The tax of a policy that is trained already, without an episode on any target: `gentax tax --forecast-only`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gentax.measure.divergence import forward_kl, same_tokens
from gentax.measure.evaluate import tasks_of
from gentax.measure.forecast.fit import Fit, Forecast, read_fit
from gentax.measure.forecast.seen import MOVED
from gentax.measure.statistics import Estimate
from gentax.measure.verdict import number
from gentax.policies import Policy
from gentax.rollouts import Play, rollout

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
        """Say it, and what it rests on."""
        kl = self.kl
        said = [
            f"On {self.source} the policy moved by {kl.value:.3f} nats an action from its base (95 % interval "
            f"{kl.low:.3f} to {kl.high:.3f}, {kl.n} tasks of the {SPLIT} split; forward KL, arXiv 2509.04259)."
        ]
        tax = self.forecast.tax
        if tax is not None:
            value, low, high = (number(100 * x) for x in (tax.value, tax.low, tax.high))
            said.append(
                f"Forecast tax: {value} % of the success elsewhere, with a 95 % interval from {low} to {high} "
                f"(fit {self.fit.name!r}). No target was played."
            )
        said.append(self.forecast.why)
        said.append(
            f"The fit is of runs of {self.fit.steps} steps from {self.fit.base!r} and of the targets "
            f"{', '.join(self.fit.targets)}: for other ones it is a guess."
        )
        if self.base != self.fit.base:
            said.append(f"This policy comes from {self.base!r}.")
        if self.forecast.outside:
            said.append("It moved farther or less than any policy that the fit has seen: an extrapolation.")
        return said

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "kl": self.kl.to_json(),
            "fit": self.fit.name,
            **self.forecast.to_json(),
            "sentences": self.sentences(),
        }


def moved(
    base: Policy, tuned: Policy, source: str, level: str | None, play: Play, seed: int = 0, tasks: int = TASKS
) -> Estimate:
    """Return the forward KL from base to tuned on states that the base meets on `tasks` train tasks of `source`.

    Raises:
        UsageError: an unknown domain or level, and what `forward_kl` refuses.
    """
    same_tokens(base, tuned)  # before anything is played
    listed = tasks_of({source: level}, tasks, SPLIT)[source]
    episodes = rollout(base, listed, play=replace(play, temperature=1.0), seed=seed)
    return forward_kl(base, tuned, episodes)


def forecast_of(
    base: Policy,
    tuned: Policy,
    source: str,
    level: str | None = None,
    *,
    play: Play | None = None,
    seed: int = 0,
    fit: str | Fit = FIT,
) -> MovedForecast:
    """Forecast the tax of `tuned` from how far it has moved from `base` on its source.

    Raises:
        UsageError: see `moved` and `read_fit`.
    """
    known = fit if isinstance(fit, Fit) else read_fit(fit)
    kl = moved(base, tuned, source, level, play or Play(), seed)
    return MovedForecast(source, kl, known.forecast_moved({MOVED[0]: kl.value}, MOVED), known, base.name)

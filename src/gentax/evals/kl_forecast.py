"""Forward KL from the base to the tuned policy, and the tax to expect of it: `gentax tax --forecast-only`.

RL's Razor (arXiv 2509.04259) finds that what a model forgets elsewhere goes with KL(base || tuned) on the new task,
which takes no episode of any other task. Here the expectation over tokens is exact (a sum over the vocabulary at each
token), the one over states is the mean over the episodes given.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gentax.core import Episode, Outcome, Task, UsageError
from gentax.core.console import shows_progress, status
from gentax.core.results import Tabular
from gentax.evals.evaluate import tasks_of
from gentax.metrics.forecast import Fit, Forecast
from gentax.metrics.statistics import Estimate, cluster_mean
from gentax.metrics.verdict import number
from gentax.models.scoring import sequence_kl
from gentax.policies import Policy
from gentax.policies.local import LocalPolicy
from gentax.rollouts import RolloutConfig, rollout

TASKS = 64
SPLIT = "train"  # a forecast must not see the tasks that it will be checked on


def forward_kl(base: Policy, tuned: Policy, episodes: Sequence[Episode]) -> Estimate:
    """Return KL(base || tuned) in nats per action on the states of `episodes`, with an interval over tasks.

    The actions of a state are the token sequences the base wrote there; their KL is the sum of that of their tokens
    (chain rule), for sampling at temperature 1.

    Args:
        base: the policy before training, with weights on this machine.
        tuned: the policy after it, with the same tokens.
        episodes: played by `base` at temperature 1, of at least 2 tasks, with their tokens. Those that ended in an
            error are left out.

    Raises:
        UsageError: a policy without weights here, two vocabularies, episodes without tokens, fewer than 2 tasks.
    """
    base, tuned = require_same_tokens(base, tuned)
    complete = [episode for episode in episodes if episode.outcome is not Outcome.ERROR]
    for episode in complete:
        if any(step.tokens is None for step in episode.steps):
            raise UsageError(f"the episode of {episode.task.id} has no tokens: a local model must play it here")
    sequences = [(episode.task, sequence) for episode in complete for sequence in episode.sequences()]
    ids, sampled = [sequence.ids_T for _, sequence in sequences], [sequence.sampled_T for _, sequence in sequences]
    kl, actions = defaultdict[Task, float](float), defaultdict[Task, int](int)
    for episode in complete:
        actions[episode.task] += episode.length
    for (task, _), of_sequence in zip(sequences, sequence_kl(base.model, tuned.model, ids, sampled), strict=True):
        kl[task] += float(of_sequence)
    return cluster_mean(np.array([kl[task] for task in actions]), np.array(list(actions.values())), "nats per action")


def require_same_tokens(base: Policy, tuned: Policy) -> tuple[LocalPolicy, LocalPolicy]:
    """Return the two policies when their KL divergence can be computed. Raises UsageError otherwise."""
    if not isinstance(base, LocalPolicy) or not isinstance(tuned, LocalPolicy):
        name = tuned.name if isinstance(base, LocalPolicy) else base.name
        raise UsageError(f"KL divergence needs the weights of both policies on this machine; {name} has none")
    if base.tokenizer.get_vocab() != tuned.tokenizer.get_vocab():
        raise UsageError(f"{base.name} and {tuned.name} have different tokens: their KL divergence is not defined")
    return base, tuned


def source_kl(
    base: Policy,
    tuned: Policy,
    source: str,
    level: str | None,
    config: RolloutConfig,
    seed: int = 0,
    tasks: int = TASKS,
    progress: bool | None = None,
) -> Estimate:
    """Return the forward KL on states that the base meets on `tasks` train tasks of `source`. Raises UsageError."""
    require_same_tokens(base, tuned)  # before anything is played
    listed = tasks_of({source: level}, tasks, SPLIT)[source]
    episodes = rollout(base, listed, config=replace(config, temperature=1.0), seed=seed, progress=progress)
    if shows_progress(progress):
        status("  scoring these episodes with both policies")
    return forward_kl(base, tuned, episodes)


@dataclass(frozen=True)
class KLForecast(Tabular):
    """How far a policy has moved on its source, and the tax to expect of that."""

    source: str
    kl: Estimate  # nats per action, see `source_kl`
    fit: Fit
    base: str  # the policy that was trained

    @property
    def forecast(self) -> Forecast:
        return self.fit.forecast_from_kl(self.kl.value)

    def sentences(self) -> list[str]:
        """Return the forecast in a sentence, the evidence in another, and the limits where there is a value."""
        kl, forecast = self.kl, self.forecast
        tax = forecast.tax
        measured = (
            f"KL from the base on {self.source}: {kl.value:.3f} nats an action (95 % interval {kl.low:.3f} to "
            f"{kl.high:.3f}, {kl.n} {SPLIT} tasks)."
        )
        if tax is None:
            return [f"No forecast: {forecast.why}.", measured]
        if not forecast.informative:
            sentence = (
                f"No forecast: in fit {self.fit.name!r} the KL does not predict the tax ({forecast.why}); "
                "measure it with `gentax tax` without --forecast-only."
            )
            return [sentence, measured]
        value, low, high = (number(100 * x) for x in (tax.value, tax.low, tax.high))
        sentence = f"Forecast tax on the targets of fit {self.fit.name!r}: {value} % (95 % interval {low} to {high})."
        limits = [f"the fit's runs had {self.fit.steps} steps"]
        if self.base != self.fit.base:
            limits.append(f"they started from {self.fit.base!r}, not {self.base!r}")
        if forecast.outside:
            limits.append("this KL lies outside their range (an extrapolation)")
        return [sentence, f"{measured[:-1]}; {forecast.why}.", f"Limits: {'; '.join(limits)}."]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row."""
        forecast = {"forecast_tax": self.forecast.tax, "informative": self.forecast.informative}
        return [{"source": self.source, "base": self.base, "fit": self.fit.name, "kl": self.kl, **forecast}]

    def to_json(self) -> dict[str, Any]:
        values = {"source": self.source, "kl": self.kl.to_json(), "fit": self.fit.name, "sentences": self.sentences()}
        return values | self.forecast.to_json()

"""From a finished study to a fit for forecasts: the features of each source, and the tax it had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from gentax.core import UsageError
from gentax.evals.kl_forecast import source_kl
from gentax.evals.probe import TRAJECTORIES, probe
from gentax.metrics.diversity import diversity
from gentax.metrics.forecast import Fit, TrainingRun, features_of
from gentax.policies.local import load_local_policy
from gentax.studies.plan import Plan
from gentax.studies.results import analyze
from gentax.studies.store import Store
from gentax.training.run_folder import latest_model


def fit_study(plan: Plan, store: Store, log: Callable[[str], None], trajectories: int = TRAJECTORIES) -> Fit:
    """Return the fit of a study that is done. `trajectories` episodes are played to probe a domain, and to take a KL.

    Domains are probed, and the KL of policies is taken, on tasks of the train split: the features of a forecast
    share no task with the evaluation. Wrappers of an arm's training are part of what is probed.

    Raises:
        UsageError: a study whose training or evaluation is not done, or whose taxes are undefined.
    """
    study = plan.study
    required = (*plan.init.values(), *plan.trained.values(), *plan.after.values())
    missing = [stage for stage in required if not store.has(stage)]
    if missing:
        raise UsageError(f"study {study.name}: {len(missing)} stages are not done; run `gentax study run` first")
    results = analyze(plan, store).results
    for result in results:
        if not result.tax.tax or not result.tax.delta_id:
            undefined = result.tax.delta_id if result.tax.tax else result.tax.tax
            raise UsageError(f"study {study.name}: the tax of {result.arm} on {result.tax.source} is {undefined}")
    base = load_local_policy(study.model, study.options)
    levels = {name: target.level for name, target in study.domains.items()}
    log("probing the domains")
    probe_domains = partial(probe, policy=base, trajectories=trajectories, config=replace(study.evaluate, wrap=()))
    plain = {p.domain: p for p in probe_domains(levels)}
    distance = diversity(plain.values()).pairs["unseen"]
    rows = []
    for result in results:
        source, arm = result.tax.source, result.arm
        config = study.train_config(source, arm, study.seeds[0])
        log(f"{arm} on {source}")
        source_probe = plain[source]
        if config.rollout.wrap:
            (source_probe,) = (p for p in probe_domains({source: levels[source]}, wrap=config.rollout.wrap) if p.plain)
        kls = []
        for seed in study.seeds:
            tuned = load_local_policy(latest_model(store.check(plan.trained[arm, source, seed])), study.options)
            kls.append(source_kl(base, tuned, source, levels[source], study.evaluate, tasks=trajectories).value)
        tax, gain = result.tax.tax, result.tax.delta_id
        assert tax  # seen above
        assert gain
        unseen = float(np.mean([distance[plain[source].name][plain[t].name].value for t in result.tax.targets]))
        features = {**features_of(source_probe.axes, unseen), "kl": float(np.mean(kls))}
        interval = (tax.value, tax.low, tax.high)
        rows.append(TrainingRun(source, arm, config.updates, len(study.seeds), features, *interval, gain.value))
    about = f"study {study.name}: {', '.join(study.arms)} on {len(study.sources)} sources, seeds {list(study.seeds)}"
    return Fit(study.name, about, study.model, tuple(study.domains), tuple(rows))

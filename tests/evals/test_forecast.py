"""Forecasts: exact on a planted line, modest on noise, silent on few domains; advice shares a budget."""

import json

import numpy as np
import pytest

from gentax.core import UsageError
from gentax.evals.kl_forecast import KLForecast
from gentax.evals.probe import probe
from gentax.metrics.forecast import Fit, TrainingRun, advise, read_fit
from gentax.metrics.statistics import Estimate


def planted(count, tax=lambda n, rng: 0.1 + 0.05 * n, seed=0, known_to=0.0, **features):
    rng = np.random.default_rng(seed)
    made = []
    for n in range(count):
        value = float(tax(n, rng))
        known = {"richness": 8.0 + n, "planning": 0.2 + 0.1 * (n % 3), "kl": 0.1 * n} | features
        made.append(TrainingRun(f"d{n}", "plain", 30, 1, known, value, value - known_to, value + known_to, 10.0))
    return Fit("planted", "made up", "base", tuple(f"d{n}" for n in range(count)), tuple(made))


def test_a_planted_line_is_found():
    fit = planted(6)
    assert fit.affordable() == ("richness",)
    assert planted(9, diversity=0.5).affordable() == ("richness", "planning", "diversity")
    found = fit.forecast({"richness": 10.5, "planning": 0.3})
    assert found.tax.value == pytest.approx(0.1 + 0.05 * 2.5)
    assert found.tax.high - found.tax.low < 1e-6
    assert found.outside == ()
    assert fit.forecast({"richness": 99.0, "planning": 0.3}).outside == ("richness",)
    assert "richness" in found.why
    vague = planted(6, known_to=0.1).forecast({"richness": 10.5}).tax
    assert vague.high - vague.low > 0.2  # no surer than the taxes themselves are known


def test_noise_is_forecast_by_its_mean():
    fit = planted(6, lambda n, rng: 0.2 + 0.1 * (-1) ** n)
    found = fit.forecast({"richness": 10.0})
    assert found.tax.value == pytest.approx(0.2)
    assert "points of tax by the mean" in found.why
    assert not found.informative
    assert found.tax.low < 0.1 < 0.3 < found.tax.high


def test_few_domains_say_so():
    few = planted(3).forecast({"richness": 9.0})
    assert (few.tax, few.why) == (None, "fit 'planted' has 3 source domains, and a forecast takes 4")
    assert planted(4).affordable() == ()
    assert planted(4).forecast({}).tax
    assert "fit 'planted' has 3 source domains with kl" in planted(3).forecast_from_kl(0.1).why


def test_a_domain_is_left_out_with_all_its_arms():
    fit = planted(6, lambda n, rng: n % 2)
    twice = Fit("two arms", "made up", "base", ("x",), (*fit.rows, *fit.rows))
    one, two = (of.regress(("richness",)) for of in (fit, twice))
    assert two.error == pytest.approx(one.error)
    assert two.df == one.df == 4
    assert two.predict({"richness": 9.0}) == pytest.approx(one.predict({"richness": 9.0}))


def test_intervals_hold_what_they_forecast():
    hits = []
    for seed in range(400):
        fit = planted(6, lambda n, rng: 0.1 + 0.05 * n + 0.1 * rng.standard_normal(), seed=seed)
        truth = 0.1 + 0.05 * 2.5 + 0.1 * np.random.default_rng(10_000 + seed).standard_normal()
        hits.append(fit.forecast({"richness": 10.5, "planning": 0.3}).tax.contains(truth))
    assert 0.93 <= np.mean(hits) <= 1


def test_what_has_not_moved_costs_nothing():
    fit = planted(5, lambda n, rng: 0.4 * n)
    assert fit.forecast_from_kl(0.0).tax.value == 0
    assert fit.forecast_from_kl(0.25).tax.value == pytest.approx(1.0)
    with pytest.raises(UsageError, match="feature"):
        fit.forecast({"kl": 3.0})


def moved_by(fit, kl=0.25, base="base"):
    return KLForecast("sokoban", Estimate(kl, kl / 2, 2 * kl, "tasks", "nats", 64), fit, base)


def test_a_forecast_that_knows_nothing_says_so_in_one_sentence():
    for fit in (planted(3), planted(6, lambda n, rng: 0.2 + 0.1 * (-1) ** n)):
        first, *rest = moved_by(fit).sentences()
        assert first.startswith("No forecast: ")
        assert [line.partition(":")[0] for line in rest] == ["KL from the base on sokoban"]  # what was measured


def test_a_forecast_is_said_first_and_each_limit_once():
    fit = planted(5, lambda n, rng: 0.4 * n)
    first, evidence, limits = moved_by(fit, kl=9.0, base="mine").sentences()
    assert first.startswith("Forecast tax on the targets of fit 'planted': ")
    assert "leave-one-domain-out error" in evidence
    assert limits == (
        "Limits: the fit's runs had 30 steps; they started from 'base', not 'mine'; this KL lies outside their range "
        "(an extrapolation)."
    )


def test_a_fit_is_stored_with_its_data(tmp_path):
    fit, file = planted(5), tmp_path / "fit.json"
    file.write_text(json.dumps(fit.to_json()))
    assert read_fit(file) == fit
    for broken in ("", "[]", '{"format": 1}', json.dumps(fit.to_json() | {"rows": []}), '{"format": 9, "rows": []}'):
        file.write_text(broken)
        with pytest.raises(UsageError, match="fit"):
            read_fit(file)
    for key, bad in {"steps": "many", "seeds": 0, "features": None, "tax_low": True}.items():
        rows = fit.to_json()["rows"]
        rows[0][key] = bad
        file.write_text(json.dumps(fit.to_json() | {"rows": rows}))
        with pytest.raises(UsageError, match=rf"rows\.0\.{key}"):
            read_fit(file)
    with pytest.raises(UsageError, match="did you mean 'sources'"):
        read_fit("source")
    shipped = read_fit("sources")
    assert shipped.forecast(shipped.rows[0].features).tax
    assert shipped.forecast_from_kl(shipped.rows[0].features["kl"]).tax


ALL = ["sokoban", "crafting", "babyai"]


@pytest.fixture(scope="module")
def probes():
    return probe(ALL, "random", trajectories=8)


def test_a_budget_decides_how_many_may_be_mixed(probes):
    names = ["sokoban", "crafting"]
    fit = planted(5)
    alone = advise(probes, names, ALL, fit, 59)
    assert {len(a.sources) for a in alone} == {1}
    both = advise(probes, names, ALL, fit, 60)
    assert ("sokoban", "crafting") in {a.sources for a in both}
    mixed = next(a for a in both if len(a.sources) == 2)
    assert mixed.steps == 30
    assert mixed.targets == ("babyai",)
    assert {a.targets for a in advise(probes, names, ["babyai"], fit, 30)} == {("babyai",)}
    single = {a.sources[0]: a.features for a in both if len(a.sources) == 1}
    assert mixed.features["richness"] == pytest.approx(np.mean([single[n]["richness"] for n in names]))
    order = [a.forecast.tax.value for a in both]
    assert order == sorted(order)


def test_what_cannot_be_told_apart_shares_a_rank(probes):
    noise = planted(6, lambda n, rng: 0.2 + 0.1 * (-1) ** n)
    assert {a.rank for a in advise(probes, ["sokoban", "crafting"], ALL, noise, 60)} == {1}
    few = advise(probes, ["sokoban"], ALL, planted(3), 30)
    assert few[0].rank is None
    assert few[0].forecast.tax is None


@pytest.mark.parametrize(
    ("candidate", "targets", "budget", "says"),
    [
        ("webshop", ALL, 30, "was not probed"),
        ("sokoban", ALL, 0, "at least 1"),
        ("sokoban", ["sokoban"], 30, "one other"),
    ],
)
def test_advice_that_cannot_be_given_is_refused(probes, candidate, targets, budget, says):
    with pytest.raises(UsageError, match=says):
        advise(probes, [candidate], targets, planted(5), budget)

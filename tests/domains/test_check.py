"""The conformance check: passed by every installed domain, failed by an environment broken in exactly that way."""

from __future__ import annotations

import broken_envs
import pytest

import gentax
from conftest import by_domain
from gentax.core import UsageError
from gentax.domains import domains, missing_modules
from gentax.domains.check import CHECKS, QUICK, CheckBudget, Verdict

INSTALLED = [name for name, record in domains().items() if not missing_modules(record)]
NAMES = [name for name, _, _ in CHECKS]
SMALL = CheckBudget(tasks=12, starts=60, seconds=30)


@pytest.fixture(autouse=True)
def release():
    """Give back what broken environments keep."""
    yield
    for thing in broken_envs._kept:
        for end in ("kill", "wait", "close"):
            getattr(thing, end, lambda: None)()
    broken_envs._kept.clear()


@pytest.mark.slow
@pytest.mark.parametrize("name", by_domain(INSTALLED))
def test_every_installed_domain_passes(name):
    report = gentax.check(name, effort=QUICK)
    assert not report.failed, report.failed
    assert [result.name for result in report.results] == NAMES
    left_out = {result.name for result in report.results if result.verdict is Verdict.NOT_APPLICABLE}
    assert left_out == set(), report.results
    assert all(result.message for result in report.results)


def test_a_sound_environment_passes_every_check():
    report = gentax.check("broken_envs:Sound", effort=SMALL)
    assert {result.verdict for result in report.results} == {Verdict.PASSED}, report.results
    assert report.to_json()["passed"] is True
    assert report.to_json()["level"] == "short"


def test_optional_methods_that_are_missing_are_not_checked():
    report = gentax.check("broken_envs:Silent", effort=SMALL)
    assert report.passed, report.failed
    left_out = {result.name for result in report.results if result.verdict is Verdict.NOT_APPLICABLE}
    assert left_out == {"expert", "admissible", "contents"}


def test_a_domain_registered_in_this_process_only_skips_the_check_in_another(toy):
    report = gentax.check("toy", effort=SMALL, only=["other process", "interface"])
    assert [result.verdict for result in report.results] == [Verdict.PASSED, Verdict.NOT_APPLICABLE], report.results
    assert "this process only" in report.results[1].message


def test_a_check_in_another_process_survives_output_and_reports_a_hang(monkeypatch):
    (result,) = gentax.check("broken_envs:SaysGoodbye", effort=SMALL, only=["other process"]).results
    assert result.verdict is Verdict.PASSED, result
    monkeypatch.setattr("gentax.domains.check.checks.OTHER_PROCESS_SECONDS", 0.01)
    (result,) = gentax.check("broken_envs:Sound", effort=SMALL, only=["other process"]).results
    assert "another process does not start it in 0.01 s" in result.message


def test_an_error_message_with_surrogates_is_shortened_and_encodable(monkeypatch):
    def _step(self, action):
        raise KeyError("a\ud800\nb" * 300)

    monkeypatch.setattr(broken_envs.Sound, "_step", _step)
    (result,) = gentax.check("broken_envs:Sound", effort=SMALL, only=["expert"]).results
    assert result.verdict is Verdict.FAILED
    assert len(result.message.encode()) <= 400


def test_tasks_with_the_same_first_observation_may_differ_later():
    (result,) = gentax.check("broken_envs:Twins", effort=SMALL, only=["disjoint splits"]).results
    assert result.verdict is Verdict.PASSED, result
    assert "go other ways" in result.message


@pytest.mark.parametrize(
    ("cls", "check", "says"), broken_envs.BROKEN, ids=[row[0].__name__ for row in broken_envs.BROKEN]
)
def test_each_defect_is_found_by_its_check(monkeypatch, cls, check, says):
    monkeypatch.setattr("gentax.domains.check.checks.PATIENCE", 0.2)  # what is kept is not given back later either
    (result,) = gentax.check(f"broken_envs:{cls.__name__}", effort=SMALL, only=[check]).results
    assert result.verdict is Verdict.FAILED, result
    assert says in result.message


def test_a_defect_fails_its_own_check_only():
    report = gentax.check("broken_envs:PaysTooMuch", effort=SMALL)
    assert [result.name for result in report.failed] == ["rewards"]


def test_a_slow_environment_is_checked_on_fewer_tasks_and_the_report_says_so(monkeypatch):
    import time

    _reset_task = broken_envs.Sound._reset_task
    monkeypatch.setattr(
        broken_envs.Sound, "_reset_task", lambda self, task: time.sleep(0.02) or _reset_task(self, task)
    )
    effort = CheckBudget(tasks=50, starts=300, seconds=1)
    report = gentax.check("broken_envs:Sound", effort=effort, only=["disjoint splits", "expert"])
    assert report.passed
    assert all("(time was up)" in result.message for result in report.results)
    assert sum(result.seconds for result in report.results) < 5


def test_worlds_with_equal_first_observations_have_different_fingerprints():
    env = gentax.make("babyai")
    alike: dict[str, set[str]] = {}
    for index in range(400):
        observation, info = env.reset(options={"index": index})
        alike.setdefault(info["goal"] + observation, set()).add(env.fingerprint())
    assert any(len(prints) > 1 for prints in alike.values())
    env.close()


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: gentax.check("sokobn"), "did you mean 'sokoban'"),
        (lambda: gentax.check("sokoban", "6x6-lnog"), "did you mean '6x6-long'"),
        (lambda: gentax.check("sokoban", rendring="grid"), "did you mean 'rendering'"),
        (lambda: gentax.check("sokoban", only=["rewrds"]), "did you mean 'rewards'"),
        (lambda: CheckBudget(tasks=0), "tasks must be more than 0"),
        (lambda: CheckBudget(seconds=float("nan")), "seconds must be more than 0"),
        (lambda: CheckBudget(seconds=float("inf")), "seconds must be more than 0"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(ask, says):
    with pytest.raises(UsageError, match=says) as error:
        ask()
    assert len(str(error.value).splitlines()) == 1

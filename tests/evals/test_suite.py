"""A suite is what was frozen, is played only where tasks start as they did then, and its results add up."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from chat_server import ChatServer
from command import run
from conftest import by_domain
from gentax.core import Episode, Outcome, StepResult, UsageError, split_of
from gentax.domains import registry
from gentax.domains.crafting import Crafting
from gentax.evals import suite as suite_module
from gentax.evals import suite_run
from gentax.evals.paired_eval import paired_scores
from gentax.evals.suite import FROZEN, check_starts, digest, freeze_domain, load_suite, read_suite, write_lines
from gentax.evals.suite_result import DomainResult, PlayedEpisode, SuiteResult, read_result, verify
from gentax.evals.suite_run import play_suite
from gentax.metrics.tax import tax_report
from gentax.models.source import BASE, fingerprint
from gentax.policies.chat_client import Usage
from gentax.policies.load import RandomPolicy

FILE = Path(suite_module.__file__).with_name("frozen_suites") / "v2.json"


def made_up(policy: str, rate: float, seed: int = 0, **changes) -> SuiteResult:
    """A result of all of v1 with outcomes drawn at a rate of success."""
    suite, rng = load_suite("v2"), np.random.default_rng(seed)
    domains = {}
    for name, frozen in suite.domains.items():
        won = [bool(x) for x in rng.random(len(frozen.starts)) < rate]
        rows = [
            PlayedEpisode(id, 0, "success" if one else "failure", frozen.horizon, 1, float(one), 9)
            for id, one in zip(frozen.starts, won, strict=True)
        ]
        domains[name] = DomainResult(frozen.level, frozen.horizon, dict(frozen.starts), tuple(rows))
    made_with = {"gentax": "0.0.1", "python": "3.11.1", "platform": "Linux"}
    return SuiteResult("v2", suite.digest, policy, None, made_with, changes.pop("missing", ()), domains)


def broken(result: SuiteResult, name: str, count: int) -> SuiteResult:
    """The result with the first `count` episodes of a domain ended in an error."""
    old = result.domains[name]
    bad = [dataclasses.replace(one, outcome="error", ret=0.0, error="gone") for one in old.episodes[:count]]
    new = dataclasses.replace(old, episodes=(*bad, *old.episodes[count:]))
    return dataclasses.replace(result, domains={**result.domains, name: new})


def without(result: SuiteResult, *names: str) -> SuiteResult:
    domains = {name: one for name, one in result.domains.items() if name not in names}
    return dataclasses.replace(result, domains=domains, missing=names)


@pytest.fixture
def two_ready(monkeypatch):
    """Make all domains but crafting and sokoban lack a module."""
    known = {
        name: record if name in ("crafting", "sokoban") else dataclasses.replace(record, requires=("no_such_module",))
        for name, record in registry.domains().items()
    }
    monkeypatch.setattr(registry, "domains", lambda: known)


def test_v2_fixes_everything():
    suite = load_suite("v2")
    assert set(suite.domains) == set(registry.BUILT_IN)
    written = json.loads(FILE.read_text())["play"]
    assert written == {
        "context": "full", "thinking": False, "admissible": False, "temperature": 0.4, "max_new_tokens": 32,
        "horizon": None, "reward": "sparse", "wrap": [],
    }  # fmt: skip
    for name, frozen in suite.domains.items():
        tasks = frozen.tasks()
        assert [task.index for task in tasks] == list(range(128))
        assert {(task.domain, task.level, task.split) for task in tasks} == {(name, frozen.level, "test")}
        assert suite.play_of(name).horizon == frozen.horizon >= 8
        assert len(frozen.walks) == 8
        assert list(frozen.contents) == list(frozen.starts)
        assert all(split_of(content) == "test" for content in suite.clusters(name)) or name in OWN_FOLDS
        assert suite.chance(name).shape == (128,)
        assert 0 <= suite.chance(name).mean() < 0.5
    assert len(set(suite.clusters("sokoban"))) == 128  # no room twice


OWN_FOLDS = {"sciworld", "twx-cooking", "twx-mapreader"}  # the packages' own, not by a hash of contents


def test_a_retired_suite_says_why_and_what_to_play():
    with pytest.raises(UsageError, match=r"suite v1 is retired: its test tasks share .* measure again on v2"):
        load_suite("v1")
    old = dataclasses.replace(made_up("me", 0.5), suite="v1", digest="552e5be02186648cc79f50a70418fe43")
    with pytest.raises(UsageError, match=r"result of me is of suite v1, which is retired: .* measure again on v2"):
        paired_scores(made_up("you", 0.5), old)


@pytest.mark.parametrize("name", ["sokoban", "crafting", "webshop", "babyai"])
def test_freezing_again_makes_what_is_frozen(name):
    suite = load_suite("v2")
    few = dict(list(suite.domains[name].starts.items())[:8])
    domain = dataclasses.replace(suite.domains[name], starts=few, walks=suite.domains[name].walks[:2])
    made = freeze_domain(dataclasses.replace(suite, domains={name: domain}), name)
    frozen = json.loads(FILE.read_text())["domains"][name]
    assert list(made["starts"].items()) == list(frozen["starts"].items())[:8]
    assert made["walks"] == frozen["walks"][:2]
    assert made["random"] == frozen["random"][:8]
    assert list(made["contents"].items()) == list(frozen["contents"].items())[:8]
    assert (made["level"], made["horizon"]) == (frozen["level"], frozen["horizon"])


def test_an_edited_suite_is_refused(tmp_path):
    content = json.loads(FILE.read_text())
    copy = tmp_path / "v2.json"
    copy.write_text(json.dumps(content))  # other spaces, the same content
    assert read_suite(copy, FROZEN["v2"]) == load_suite("v2")
    content["domains"]["sokoban"]["horizon"] += 1
    copy.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"v2\.json has been edited: its hash is " + digest(content)):
        read_suite(copy, FROZEN["v2"])


@pytest.mark.parametrize("name", by_domain(["sciworld", "alfworld", "twx-cooking", "twx-mapreader"]))
def test_what_is_installed_here_starts_and_goes_on_as_frozen(name):
    suite = load_suite("v2")
    if registry.missing_modules(registry.domain(name)):
        pytest.skip(f"{name} is not installed")
    frozen = suite.domains[name]
    few = dataclasses.replace(frozen, starts=dict(list(frozen.starts.items())[:4]), walks=frozen.walks[:1])
    suite = dataclasses.replace(suite, domains={name: few})
    assert check_starts(suite, name) == few.starts


def test_a_start_that_moved_is_refused_with_its_likely_cause(monkeypatch):
    suite = load_suite("v2")
    frozen = suite.domains["webshop"]
    moved = {**frozen.starts, "webshop/4k-easy/test/5": "0" * 16}
    suite = dataclasses.replace(suite, domains={"webshop": dataclasses.replace(frozen, starts=moved)})
    with pytest.raises(UsageError, match=r"task webshop/4k-easy/test/5 does not start .* 1 of 128 .* bm25s \d"):
        check_starts(suite, "webshop")


def test_an_environment_that_goes_on_otherwise_is_noticed(monkeypatch):
    _step = Crafting._step

    def other(self: Crafting, action: str) -> StepResult:
        acted = _step(self, action)
        return acted._replace(observation=acted.observation + ".")

    monkeypatch.setattr(Crafting, "_step", other)
    with pytest.raises(UsageError, match="crafting starts as it was frozen but goes on otherwise"):
        check_starts(load_suite("v2"), "crafting")


def test_a_result_is_the_same_again_and_reads_back(tmp_path):
    one = play_suite("random", domains=["crafting"], out=tmp_path / "one.json")
    two = play_suite("random", domains=["crafting"], out=tmp_path / "two.json")
    assert one == two == read_result(tmp_path / "one.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.json", "two.json"]
    assert len(one.domains["crafting"].episodes) == 128
    assert "sokoban" in one.missing
    assert all(check.passed for check in verify(tmp_path / "one.json"))


def test_a_policy_that_cannot_be_read_is_not_told_to_change_what_a_suite_fixes(tmp_path):
    with pytest.raises(UsageError, match=r"--allow-unreadable \(suite v2 fixes all other settings\)$"):
        play_suite(lambda messages: "I would rather talk.", domains=["crafting"], out=tmp_path / "r.json")


@pytest.mark.slow
def test_being_stopped_costs_one_domain_at_most(tmp_path):
    out, chosen = tmp_path / "r.json", ["crafting", "sokoban"]

    def stop(episode: Episode) -> None:
        if episode.task.domain == "crafting":  # sokoban, the suite's first, is done by then
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play_suite("random", domains=chosen, out=out, on_episode=stop)
    assert not out.exists()
    assert [p.name for p in (tmp_path / "r.json.partial").iterdir()] == ["sokoban.json"]

    def played(policy: str, to: Path) -> set[str]:
        names: set[str] = set()
        play_suite(policy, domains=chosen, out=to, on_episode=lambda episode: names.add(episode.task.domain))
        return names

    half = (tmp_path / "r.json.partial" / "sokoban.json").read_bytes()
    assert played("random", out) == {"crafting"}
    assert not (tmp_path / "r.json.partial").exists()
    assert played("random", tmp_path / "whole.json") == {"crafting", "sokoban"}
    assert out.read_bytes() == (tmp_path / "whole.json").read_bytes()
    for other in (half, b"{", half.replace(b'"failure"', b'"success"', 1)):  # of another policy, cut short, forged
        (tmp_path / "x.json.partial").mkdir(exist_ok=True)
        (tmp_path / "x.json.partial" / "sokoban.json").write_bytes(other)
        who = "expert" if other is half else "random"
        assert played(who, tmp_path / "x.json") == {"crafting", "sokoban"}


def test_what_a_server_was_asked_is_in_the_result_and_printed(tmp_path):
    with ChatServer(lambda _: "<action>look</action>") as server:
        done = run(
            "evaluate", "--suite", "v2", "--policy", server.url, "-d", "crafting", "--json", tmp_path / "r.json",
            "--input-price", 1e6, "--output-price", 1e6, "--spend-limit", 100, "--parallel", 4,
        )  # fmt: skip
    assert done.code == 0, done.err
    usage = read_result(tmp_path / "r.json").usage
    assert usage.requests == len(server.requests)
    assert 100 <= usage.cost < 200
    assert f"{usage.requests:,} requests" in done.out
    assert "not asked: the spend limit of $100 is reached" in (tmp_path / "r.json").read_text()


def test_the_usage_of_a_resumed_suite_counts_what_it_kept(tmp_path):
    class Counted(RandomPolicy):
        def __init__(self) -> None:
            self.usage = Usage()

        def reply(self, turns):
            self.usage.requests += len(turns)
            return super().reply(turns)

    def stop(episode: Episode) -> None:
        if episode.task.domain == "crafting":
            raise KeyboardInterrupt
        asked.append(first.usage.requests)

    out, chosen, first, asked = tmp_path / "r.json", ["crafting", "sokoban"], Counted(), []
    with pytest.raises(KeyboardInterrupt):
        play_suite(first, domains=chosen, out=out, on_episode=stop)
    second = Counted()
    result = play_suite(second, domains=chosen, out=out)
    assert 0 < second.usage.requests < result.usage.requests == asked[-1] + second.usage.requests
    assert result == read_result(out)


def test_weights_are_named_by_their_fingerprint(tiny, tmp_path, monkeypatch):
    suite = load_suite("v2")
    frozen = suite.domains["crafting"]
    few = {"crafting": dataclasses.replace(frozen, starts=dict(list(frozen.starts.items())[:4]))}
    monkeypatch.setattr(suite_run, "load_suite", lambda name: dataclasses.replace(suite, domains=few))
    result = play_suite("base", domains=["crafting"])
    assert result.fingerprint == fingerprint("base") == fingerprint(BASE) != fingerprint(tiny)
    assert all(row.written and row.written > 0 for row in result.domains["crafting"].episodes)
    copy = Path(shutil.copytree(tiny, tmp_path / "m"))
    assert fingerprint(copy) == fingerprint(tiny)
    weights = next(copy.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")  # it was that of a weight of 1.0
    assert fingerprint(copy) != fingerprint(tiny)


def test_what_is_not_installed_is_missing_unless_it_is_asked_for(two_ready):
    result = play_suite("expert")
    assert list(result.domains) == ["sokoban", "crafting"]
    assert set(result.missing) == set(registry.BUILT_IN) - {"sokoban", "crafting"}
    assert result.card().mean is None
    with pytest.raises(UsageError, match=r'.alfworld. needs no_such_module: pip install "gentax\[alfworld\]"'):
        play_suite("expert", domains=["alfworld"])
    with pytest.raises(UsageError, match="unknown domain of suite v2 'sokobn'; did you mean 'sokoban'"):
        play_suite("expert", domains=["sokobn"])


def test_the_card_has_a_mean_of_whole_suites_only():
    result = made_up("m", 0.3)
    card = result.card()
    rates = [100 * played.scores().mean() for played in result.domains.values()]
    success = [score.success for score in card.domains.values()]
    assert [one.value for one in success] == pytest.approx(rates)
    assert card.mean.value == pytest.approx(np.mean(rates))
    assert card.mean.n == 8 * 128
    alone = np.mean([one.high - one.low for one in success])
    assert card.mean.high - card.mean.low == pytest.approx(alone / np.sqrt(8), rel=0.05)
    assert without(result, "alfworld").card().mean is None
    assert made_up("m", 0.0).card().mean.low == 0.0
    assert made_up("m", 1.0).card().mean.high == 100.0


def test_tasks_with_an_error_are_left_out_up_to_2_percent():
    result = broken(made_up("m", 0.5), "sokoban", 2)
    assert np.isnan(result.domains["sokoban"].scores()).sum() == 2
    card = result.card()
    assert (card.domains["sokoban"].left_out, card.domains["sokoban"].success.n) == (2, 126)
    assert card.mean.n == 8 * 128 - 2
    many = broken(made_up("m", 0.5), "sokoban", 3).card()
    assert many.domains["sokoban"].success is None
    assert many.mean is None


def test_two_results_give_a_tax_without_playing():
    before, after = made_up("base", 0.6, 1), broken(made_up("tuned", 0.3, 2), "crafting", 1)
    report = tax_report("sokoban", *paired_scores(before, without(after, "alfworld")))
    assert set(report.targets) == set(registry.BUILT_IN) - {"sokoban", "alfworld"}
    assert report.excluded_tasks["crafting"] == 1
    assert report.tax.value == pytest.approx(0.5, abs=0.1)
    assert report.init["webshop"].value == before.card().domains["webshop"].success.value
    of = {n: dataclasses.replace(d, starts=dict(sorted(d.starts.items()))) for n, d in after.domains.items()}
    for as_played, as_sorted in zip(
        paired_scores(before, after), paired_scores(before, dataclasses.replace(after, domains=of)), strict=True
    ):
        assert all(np.array_equal(as_played[name], as_sorted[name], equal_nan=True) for name in as_played)


def test_results_that_do_not_compare_are_refused():
    one, domains = made_up("one", 0.5), list(load_suite("v2").domains)
    moved = dataclasses.replace(one.domains["sokoban"], episodes=one.domains["sokoban"].episodes[1:])
    forged = dataclasses.replace(one, digest="x")
    for before, after, says in (
        (one, forged, "different suites"),
        (forged, forged, "result of one is not sound: suite: v2 was frozen as"),
        (without(one, *domains[4:]), without(one, *domains[:4]), "no domain of suite v2 in common"),
        (one, broken(made_up("two", 0.5), "sokoban", 60), "result of two is not sound: errors"),
        (one, dataclasses.replace(one, domains={**one.domains, "sokoban": moved}), "sokoban lacks sample 0 of task"),
    ):
        with pytest.raises(UsageError, match=says):
            paired_scores(before, after)


def test_a_whole_result_is_found_sound(tmp_path):
    write_lines(tmp_path / "r.json", broken(made_up("m", 0.4), "babyai", 2).to_json())
    checks = {check.name: check for check in verify(tmp_path / "r.json")}
    assert all(check.passed for check in checks.values()), checks
    assert checks["domains"].found == "all 8"
    assert "mean" in checks["score card"].found
    assert "gentax 0.0.1" in checks["versions"].found
    assert read_result(tmp_path / "r.json").domains["babyai"].episodes[0].error == "gone"
    assert (tmp_path / "r.json").stat().st_size < 300_000
    assert set(Outcome) == {"success", "failure", "error"}

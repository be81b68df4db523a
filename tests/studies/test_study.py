"""A study on the toy domain: stages appear whole, are done once, and a kill costs only what was in flight."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from command import run
from gentax.core import Episode, Outcome, Step, Task, UsageError
from gentax.core.settings import read_settings
from gentax.domains import registry
from gentax.studies import Study, StudyCallback, StudyRun, run_study
from gentax.studies.plan import make_plan
from gentax.studies.results import fit_study
from gentax.studies.store import Store
from gentax.studies.study import Target, check, read_study
from gentax.training.check import touched_by


class Recorder(StudyCallback):
    def __init__(self):
        self.done, self.outcomes = [], []

    def on_begin(self, stages, done, slots):
        self.stages, self.before = stages, done

    def on_stage_begin(self, stage):
        self.done.append(stage.kind)

    def on_stage_end(self, stage, outcome):
        self.outcomes.append(outcome)


@pytest.fixture
def study(toy, tiny, monkeypatch):
    # nothing that the untrained model says can be read
    monkeypatch.setattr("gentax.rollouts.engine.MAX_UNREADABLE_SHARE", 1.0)
    known = registry.domains()
    known["other"] = replace(known["toy"], name="other", entry="test_study:Other")
    train = {
        "max_steps": 2,
        "tasks_per_step": 2,
        "num_generations": 2,
        "eval_steps": 0,
        "rollout": {"temperature": 1.0, "max_new_tokens": 4},
    }
    return read_settings(
        Study,
        {
            "name": "small",
            "model": str(tiny),
            "domains": {"toy": {"tasks": 6, "level": "one"}, "other": {"tasks": 6}},
            "sources": ["toy"],
            "train": train,
            "evaluate": {"max_new_tokens": 4},
        },
        "test",
    )


from conftest import TOY, Toy  # noqa: E402

pytestmark = pytest.mark.slow


class Other(Toy):
    """The toy under another name."""

    domain = replace(TOY, name="other", entry="test_study:Other")


class Third(Toy):
    """Another."""

    domain = replace(TOY, name="third", entry="test_study:Third")


def test_a_study_runs_once_and_is_not_run_again(study, tmp_path):
    first, second = Recorder(), Recorder()
    page = run_study(study, tmp_path, first)
    assert first.done == [*["evaluate"] * 4, "train", "evaluate", "evaluate", "report"]
    assert first.outcomes[0] == "0.0 % of 6 tasks solved"
    assert first.before == []
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    again = run_study(study, tmp_path, second)
    assert second.done == []
    assert list(second.before) == list(second.stages)
    assert again == page
    found = json.loads((page.parent / "results.json").read_text())
    (result,) = found["results"]
    assert result["source"] == "toy"
    assert result["tasks"] == {"toy": 6, "other": 6}
    assert len(found["axes"]) == 2
    assert set(result["above_chance"]) == {"toy", "other"}


@pytest.fixture
def wide(study, monkeypatch):
    """Two sources, a third target, two arms, two seeds."""
    known = registry.domains()
    known["third"] = replace(known["toy"], name="third", entry="test_study:Third")
    domains = {**study.domains, "third": Target(tasks=6)}
    arms = {"plain": {}, "short": {"max_steps": 1}}
    return replace(study, domains=domains, sources=("toy", "other"), arms=arms, seeds=(0, 1))


def rewrite_outcomes(todo, store):
    """Make episodes of a study that a tiny model cannot win: nearly all before, fewer after."""
    for key, stage in [*todo.init.items(), *todo.after.items()]:
        lost = 1 if isinstance(key, str) else 2 + (key[0] == "plain") + key[2]
        seal, scores = store.seal(stage), store.json(stage, "scores.json")
        folder = store.fresh_folder(stage)
        shutil.copytree(store.path(stage), folder, dirs_exist_ok=True)
        success = [float(n >= lost) for n in range(len(scores["success"]))]
        (folder / "scores.json").write_text(json.dumps(scores | {"success": success}))
        shutil.rmtree(store.path(stage))
        store.finish(stage, folder, seal["seconds"], None)


def test_arms_are_compared_and_sources_ranked(wide, tmp_path):

    todo, store = make_plan(wide), Store(tmp_path)
    run_study(wide, tmp_path)
    rewrite_outcomes(todo, store)
    shutil.rmtree(store.path(todo.report))
    page = run_study(wide, tmp_path)
    found = json.loads((page.parent / "results.json").read_text())
    short = found["arms"]["toy"]["short"]
    assert short["targets"]["value"] == pytest.approx(100 / 6)
    assert short["better"]["seeds"] == 2
    assert set(found["ranks"]) == {"plain", "short"}
    assert set(found["ranks"]["plain"]) == {"toy", "other"}
    html = page.read_text(encoding="utf-8")
    assert "Arms compared" in html
    assert "OOD rank score" in html


def test_a_finished_study_makes_a_fit(wide, tmp_path):

    todo, store, said = make_plan(wide), Store(tmp_path), []
    with pytest.raises(UsageError, match="are not done"):
        fit_study(todo, store, said.append)
    run_study(wide, tmp_path)
    rewrite_outcomes(todo, store)
    fit = fit_study(todo, store, said.append, trajectories=8)
    assert {(row.source, row.arm) for row in fit.rows} == {(s, a) for s in ("toy", "other") for a in wide.arms}
    row = next(r for r in fit.rows if (r.source, r.arm) == ("toy", "plain"))
    assert row.tax == pytest.approx(1 - (2.5 / 5))
    assert set(row.features) == {"richness", "planning", "diversity", "kl"}
    assert row.features["kl"] == pytest.approx(0)  # a tiny model wins nothing, learns nothing, and has not moved
    assert row.steps == 2
    assert row.seeds == 2
    assert said


def test_only_missing_stages_are_run(study, tmp_path):
    run_study(study, tmp_path)
    (trained,) = tmp_path.glob("stages/train-*")
    before = trained.stat().st_mtime_ns
    todo = make_plan(study)
    for stage in (todo.after["plain", "toy", 0, "other"], todo.report):
        shutil.rmtree(Store(tmp_path).path(stage))
    again = Recorder()
    run_study(study, tmp_path, again)
    assert again.done == ["evaluate", "report"]
    assert trained.stat().st_mtime_ns == before


def test_an_incomplete_stage_is_run_again(study, tmp_path):
    todo = make_plan(study)
    half = Store(tmp_path).path(todo.init["toy"])
    half.mkdir(parents=True)
    (half / "episodes.jsonl.gz").write_bytes(b"half")
    listener = Recorder()
    run_study(study, tmp_path, listener)
    assert listener.done[0] == "evaluate"
    assert (half / "stage.json").is_file()


def test_a_stopped_training_is_continued_from_its_checkpoint(study, tmp_path, monkeypatch):
    study = replace(study, train={**study.train, "max_steps": 4, "save_steps": 1})

    class Stop(Recorder):
        def on_progress(self, stage, fraction, detail):
            if "step 3/4" in detail:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path, Stop())
    assert not list(tmp_path.glob("stages/train-*"))
    seen = []

    class Watch(Recorder):
        def on_progress(self, stage, fraction, detail):
            seen.append(detail)

    run_study(study, tmp_path, Watch())
    assert re.findall(r"step (\d)/4", " ".join(seen)) == ["3", "4"]
    assert "playing the first batch of episodes" in seen  # also what has no step is said


def test_addresses_follow_everything_a_stage_depends_on(study):
    def folders(changed):
        return {stage.folder for stage in make_plan(changed).stages()}

    same = folders(study)
    assert folders(replace(study)) == same
    lr = folders(replace(study, train={**study.train, "learning_rate": 1e-3}))
    assert len(lr & same) == 4  # the base and random play are the same; training and what follows it is not
    more = folders(replace(study, samples=2))
    assert len(more & same) == 1  # the training
    assert len(folders(replace(study, split="train")) & same) == 1


def test_a_teacher_that_changed_is_another_stage(study, tmp_path):
    file = tmp_path / "teacher.jsonl"
    taught = {**study.train, "sft": {"teachers": {"toy": str(file)}}}
    addresses = []
    for text in ("one", "one", "two"):
        file.write_text(text)
        addresses.append({stage.folder for stage in make_plan(replace(study, train=taught)).trained.values()})
    assert addresses[0] == addresses[1] != addresses[2]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sources": ("toyy",)}, "did you mean 'toy'"),
        ({"sources": ()}, "at least one source"),
        ({"seeds": (0, 0)}, "named twice"),
        ({"train": {"stepz": 3}}, "did you mean 'max_steps'"),
        ({"train": {"seed": 3}}, "set by the study itself"),
        ({"arms": {"plain": {"algorithm": {"betta": 0.1}}}}, "did you mean 'beta'"),
        ({"arms": {"plain": {"recipe": ["sokoban"]}}}, "recipe must be the name of one"),
        ({"arms": {"plain": {"curriculum": None}}}, "curriculum must be a mapping"),
        ({"device": "gpu"}, "unknown device 'gpu'; did you mean 'cpu'"),
        ({"train": {"dtype": "int8"}}, "unknown dtype in study small, train 'int8'"),
        ({"evaluate": {"horizon": 0}}, "at least 1 step"),
        (
            {"arms": {"plain": {"forgetting": {"replay": 1.0, "replay_domains": ["toy"]}}}},
            "replay_domains and trained on",
        ),
        ({"train": {"recipe": "sokobn"}}, "did you mean 'sokoban'"),
        ({"split": "tset"}, "did you mean 'test'"),
        ({"arms": {"plain": {}, "cut": {"remedies": "plainn"}}}, "did you mean 'plain'"),
        ({"arms": {"plain": {}, "cut": {"remedies": ["plain"]}}}, "did you mean 'plain'"),
        ({"arms": {"one": {"remedies": "two"}, "two": {"remedies": "one"}}}, "one remedies itself"),
        # names of folders
        ({"name": "../../x"}, "cannot be the name of a study or an arm"),
        ({"name": ".."}, "cannot be the name"),
        ({"arms": {"../../y": {}}}, "cannot be the name"),
        ({"arms": {"a/b": {}}}, "cannot be the name"),
    ],
)
def test_invalid_studies_are_refused(study, change, says):
    with pytest.raises(UsageError, match=says):
        check(replace(study, **change))


def test_settings_are_chosen_only_on_tasks_that_nobody_trained_on(study, monkeypatch):
    choosing = replace(study, split="validation")
    check(choosing)
    monkeypatch.setattr(Other, "content", lambda self: None)
    with pytest.raises(UsageError, match="study small chooses by validation tasks, and other does not say what its"):
        check(choosing)
    check(study)


@pytest.mark.jvm
@pytest.mark.parametrize("name", ["demo_settings", "demo_seeds"])
def test_the_studies_beside_the_demo_are_of_the_demo(name):
    beside = read_study(Path(__file__).parents[2] / "studies" / f"{name}.yaml")
    demo = read_study("demo")
    assert (beside.domains, beside.sources, beside.train) == (demo.domains, demo.sources, demo.train)
    chosen = [demo.train_config("sokoban", arm, 0) for arm in demo.arms]
    assert all(one in [beside.train_config("sokoban", arm, 0) for arm in beside.arms] for one in chosen)


def test_files_that_are_no_studies_are_refused(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'demo'"):
        read_study("demoo")
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: [")
    with pytest.raises(UsageError, match="cannot read"):
        read_study(bad)
    bad.write_text("name: x\ndomainz: {}\n")
    with pytest.raises(UsageError, match="did you mean 'domains'"):
        read_study(bad)


def test_the_shipped_demo_is_sound():
    study = read_study("demo")
    assert study.sources == ("sokoban",)
    assert len(study.domains) >= 6  # at least five targets
    assert make_plan(study).stages()
    imitation, remedy = (study.train_config("sokoban", arm, 0) for arm in ("imitation", "imitation+replay"))
    assert remedy == replace(imitation, forgetting=remedy.forgetting)  # what else it had would be compared, too
    assert touched_by(imitation) == touched_by(study.train_config("sokoban", "rl", 0)) == {"sokoban"}
    assert touched_by(remedy) == {"sokoban", "webshop", "crafting"}
    assert [study.baseline(arm) for arm in study.arms] == [None, None, "imitation"]


def test_an_arm_changes_one_setting_of_a_group_and_keeps_the_others(study):
    arms = {"plain": {}, "distract": {"rollout": {"wrap": ["distract(volume=40)"]}}}
    config = replace(study, arms=arms).train_config("toy", "distract", 0)
    assert config.rollout.wrap == ("distract(volume=40)",)
    assert (config.rollout.temperature, config.rollout.max_new_tokens) == (1.0, 4)


def test_an_arm_may_be_a_mixture_or_a_sequence(study):
    phases = [{"mixture": {"toy": 1.0, "other": 1.0}, "max_steps": 4}]
    arms = {"plain": {}, "mixed": {"curriculum": {"phases": phases}}}
    plain, mixed = (replace(study, arms=arms).train_config("toy", arm, 0) for arm in arms)
    assert plain.phases()[0].mixture == {"toy:one": 1.0}
    assert mixed.phases()[0].mixture == {"toy": 1.0, "other": 1.0}
    assert (mixed.updates, mixed.model) == (4, study.model)


def test_a_study_may_begin_with_the_recipes_that_ship(study):
    from gentax.training.config import read_values

    arms = {"plain": {}, "short": {"max_steps": 3, "sft": {"max_pairs": 7}}, "alone": {"recipe": None, "max_steps": 5}}
    shipped = replace(study, train={"recipe": "crafting"}, arms=arms)
    plain, short, alone = (shipped.train_config("toy", arm, 2) for arm in arms)
    assert (plain.source, plain.seed) == ("toy:one", 2)
    assert (plain.max_steps, plain.sft.max_pairs) == (read_values("crafting")["max_steps"], 40000)
    assert (short.max_steps, short.sft.max_pairs) == (3, 7)
    assert (alone.max_steps, alone.sft) == (5, None)
    own = replace(read_study("demo"), train={"recipe": "shipped"}, arms={"plain": {}})
    assert own.train_config("sokoban", "plain", 0).max_steps == read_values("sokoban")["max_steps"]


@pytest.mark.jvm
def test_a_remedy_has_what_its_arm_has_and_is_compared_with_it(study):
    arms = {
        "one": {"max_steps": 3, "learning_rate": 1e-3},
        "2": {"remedies": "one", "learning_rate": 2e-3},
        "three": {"remedies": 2},  # as YAML reads it
    }
    made = replace(study, arms=arms)
    assert [(r.max_steps, r.learning_rate) for r in (made.train_config("toy", arm, 0) for arm in arms)] == [
        (3, 1e-3),
        (3, 2e-3),
        (3, 2e-3),
    ]
    assert [made.baseline(arm) for arm in arms] == [None, "one", "2"]
    plain = replace(study, arms={"plain": {"max_steps": 3}, "short": {}})
    assert plain.baseline("short") == "plain"
    assert (
        plain.train_config("toy", "short", 0).max_steps == study.train["max_steps"]
    )  # that of `train`: only `remedies` inherits


def test_touched_targets_stand_apart(wide, tmp_path):
    """An arm whose replay read the text of a target is judged by the other targets alone."""

    arms = {"plain": {}, "replay": {"remedies": "plain", "forgetting": {"replay": 1.0, "replay_domains": ["third"]}}}
    made = replace(wide, arms=arms, sources=("toy",), seeds=(0,))
    todo, store = make_plan(made), Store(tmp_path)
    run_study(made, tmp_path)
    rewrite_outcomes(todo, store)
    plain, replay = StudyRun(made, tmp_path).results.results
    assert (plain.tax.touched, plain.versus_baseline) == (frozenset(), None)
    assert replay.tax.touched == {"third"}
    assert replay.tax.untouched == replay.versus_baseline.over == ("other",)
    assert replay.versus_baseline.targets.n == 6  # the tasks of one target, not of two
    assert replay.untouched_only
    assert replay.baseline_tax.n < plain.tax.tax.n
    assert set(plain.tax.above_chance) == set(made.domains)


def test_the_last_screen_matches_the_page(study, tmp_path):
    import yaml

    from gentax.core.settings import plain

    file = tmp_path / "small.yaml"
    values = json.loads(json.dumps(plain(study) | {"evaluate": {"max_new_tokens": 4}}))
    values["claims"] = ["tax(plain) < 5 %", "gain(plain) > 90"]
    file.write_text(yaml.safe_dump(values))
    shown = run("study", "run", file, "--out", tmp_path, "--json", tmp_path / "j", "--workers", "1")
    assert shown.code == 0, shown.err
    screen = shown.out.split(" left)")[-1]
    assert "gain on source" in screen
    assert "tax on targets" in screen
    assert "the tax is undefined" in screen  # the untrained model wins nothing
    assert screen.index("success %") < screen.index("tax(plain) < 5 %") < screen.index("report: ")
    assert "undefined: the base policy's success" in " ".join(screen.split())
    assert "2 claims are tested two-sided at 5 %" in screen
    page = screen.split("report: ")[1].splitlines()[0]
    assert page.endswith("report.html")
    html = Path(page).read_text(encoding="utf-8")
    assert f"gentax study run {file}" in html  # it can be run again from the page alone
    assert file.read_text(encoding="utf-8") in unescape(html)
    assert (Path(page).parent / "episodes" / "index.js").is_file()
    written = json.loads((tmp_path / "j").read_text())
    assert set(written["results"][0]["above_chance"]) == {"toy", "other"}
    assert [one["claim"] for one in written["claims"]] == values["claims"]


def test_policies_trained_by_rl_alone_are_forecast_from_other_sources():
    from types import SimpleNamespace

    from gentax.metrics.axes import axes
    from gentax.metrics.forecast import read_fit
    from gentax.metrics.tax import tax_report
    from gentax.report import ArmResult
    from gentax.studies.results import _forecasts

    names = ("sokoban", "crafting", "webshop", "babyai", "twx-cooking", "alfworld")
    steps = [Step("x" * 40, "a", "a", 0.0, True)] * 4
    episodes = {
        name: [
            Episode(Task(name, "l", "test", i), 0, "", tuple(steps[: 1 + (i + n) % 4]), Outcome.SUCCESS)
            for i in range(8)
        ]
        for n, name in enumerate(names)
    }
    known = tuple(axes(name, of, 20, prompts=lambda e: ["p" * 100 for _ in e.steps]) for name, of in episodes.items())
    rng = np.random.default_rng(0)
    before = {name: (rng.random(64) < 0.6).astype(float) for name in names}

    def forecasts(sources, model, **train):
        settings = {"domains": {name: {"tasks": 8} for name in names}, "sources": sources, "model": model}
        one = read_settings(Study, {"name": "s", **settings, "train": {"max_steps": 2, **train}}, "")
        after = {name: scores * (rng.random(64) < 0.8) for name, scores in before.items()}
        results = tuple(ArmResult(tax_report(source, before, after | {source: np.ones(64)})) for source in sources)
        return _forecasts(one, SimpleNamespace(results=results), known)

    own = forecasts(list(names[:5]), "elsewhere")
    assert [one.name for one in own] == list(names[:5])
    assert all("From study s, 2 steps on 4 sources" in one.why for one in own)
    (shipped,) = forecasts(["sokoban"], "base")
    others = read_fit("sources").without("sokoban")
    assert "sokoban" not in others.domains
    assert f"on {len(others.domains)} sources" in shipped.why
    assert forecasts(["sokoban"], "elsewhere") == ()
    assert forecasts(["sokoban"], "base", sft={"max_pairs": 7}) == ()


def test_a_study_of_few_seeds_says_beforehand_what_it_cannot_claim(study):
    assert "says what this checkpoint lost" in study.cannot_claim()
    assert "2 more training runs here" in study.cannot_claim()
    assert replace(study, seeds=(0, 1, 2)).cannot_claim() is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is not inherited")
def test_the_peak_of_memory_is_that_of_the_process_and_not_of_the_one_that_started_it():
    held = b"x" * (1 << 28)  # which Linux counts in the `ru_maxrss` of a process started from here
    code = "from gentax.studies.stages import peak_memory; print(peak_memory())"
    peak = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert 1 << 20 < int(peak) < len(held)

"""The commands that measure: `diagnose`, `probe`, `diversity`, `reference` and `tax --out`."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest

from command import run
from gentax.core.episode import read_episodes, write_episodes
from gentax.evals.evaluate import evaluate
from gentax.metrics.axes import Probe
from gentax.metrics.diversity import Diversity


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Random play in two folders as a study has them, of one level of two domains."""
    root = tmp_path_factory.mktemp("episodes")
    for name, policy in {"random": "random", "expert": "expert"}.items():
        result = evaluate(policy, {"sokoban": None, "crafting": None}, tasks=12)
        (root / name).mkdir()
        write_episodes(root / name / "episodes.jsonl.gz", [e for one in result.episodes.values() for e in one])
    return root


def test_diagnose_one_policy(files):
    shown = run("diagnose", files / "random")
    assert shown.code == 0, shown.err
    assert "sokoban: 12 episodes of 12 tasks" in shown.out
    assert "crafting: 12 episodes of 12 tasks" in shown.out
    assert "invalid: % of actions that the environment refused" in shown.out
    assert shown.out.splitlines()[1].startswith("On crafting, ")  # the point first, then the tables
    assert shown.out.index("episodes succeed") < shown.out.index("12 episodes of 12 tasks")


def test_diagnose_two_policies(files, tmp_path):
    after = files / "expert" / "episodes.jsonl.gz"
    shown = run("diagnose", files / "random", after, "--json", tmp_path / "out.json")
    assert shown.code == 0, shown.err
    assert shown.out.splitlines()[1] == json.loads((tmp_path / "out.json").read_text())["sentences"][0]
    assert " went from " in shown.out.splitlines()[1]
    assert "0 % before and after: " in shown.out
    assert "\ntruncated  " not in shown.out
    written = json.loads((tmp_path / "out.json").read_text())
    assert set(written["domains"]) == {"sokoban", "crafting"}
    one = written["domains"]["sokoban"]
    assert one["after"]["measures"]["invalid"]["value"] == 0
    assert one["change"]["ran_out"]["value"] < 0
    assert 0 <= one["p_values"]["ran_out"] <= 1
    assert written["sentences"]
    for sentence in written["sentences"]:
        assert sentence in shown.out


def test_damaged_episode_files_are_refused(files, tmp_path):
    (tmp_path / "x.gz").write_text("x")
    for args in ([tmp_path / "x.gz"], [files / "random", tmp_path], [files / "random", "--json", tmp_path]):
        failed = run("diagnose", *args)
        assert failed.code == 2
        assert str(tmp_path) in failed.err


def test_probe_prints_writes_and_plots_with_distractors(tmp_path):
    out, picture = tmp_path / "probe.json", tmp_path / "axes.svg"
    options = ["--trajectories", "8", "--samples", "2", "--horizon", "6", "--policy", "random"]
    done = run("probe", "sokoban", "crafting", *options, "--distract", "--json", str(out), "--plot", str(picture))
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    for name in ("sokoban", "sokoban + distract", "crafting", "crafting + distract"):
        assert sum(line.startswith(f"{name}  ") for line in lines) == 3, done.out  # richness, planning, pass@k
    assert "k = 2" in done.out
    assert "…" not in done.out  # nothing is cut off where output goes to a file
    rows = [Probe.from_json(row) for row in json.loads(out.read_text())["probes"]]
    assert [row.name for row in rows] == ["sokoban", "sokoban + distract", "crafting", "crafting + distract"]
    assert {row.axes.horizon for row in rows} == {6}
    assert {row.axes.planning.n for row in rows} == {4}
    assert rows[1].axes.observation_characters.value > 2 * rows[0].axes.observation_characters.value
    assert rows[0].tokenizer == "base"
    assert rows[0].axes.observation_tokens.value > 5
    assert "<svg" in picture.read_text()


def test_diversity_prints_matrices_and_the_mixture(tmp_path):
    out, picture = tmp_path / "diversity.json", tmp_path / "diversity.png"
    options = ["--trajectories", "4", "--horizon", "4", "--policy", "random"]
    options += ["--weight", "sokoban=3", "--weight", "babyai=1"]
    done = run("diversity", "sokoban", "babyai", "crafting", *options, "--json", str(out), "--plot", str(picture))
    assert done.code == 0, done.err
    written = json.loads(out.read_text())
    found = Diversity.from_json(written)
    assert found.names == ("sokoban", "babyai", "crafting")
    for measure in ("unshared", "unseen", "tfidf", "structural"):
        assert f"\n{measure}: " in done.out
        assert f"{found.pairs[measure]['sokoban']['crafting'].value:.2f} ±" in done.out
    assert "sokoban 75%, babyai 25%" in done.out
    assert f"{written['mixture']['vendi']:.2f} wholly different domains, of 2" in done.out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_diversity_shows_the_kl_of_a_tuned_policy(tmp_path):
    out = tmp_path / "diversity.json"
    options = ["--trajectories", "2", "--horizon", "3", "--tuned", "base", "--json", str(out)]
    done = run("diversity", "sokoban", "crafting", *options)
    assert done.code == 0, done.err
    assert "policy: KL(base || base)" in done.out
    moved = Diversity.from_json(json.loads(out.read_text())).policy
    assert {name: round(kl.value, 6) for name, kl in moved.items()} == {"sokoban": 0, "crafting": 0}


def test_reference_recomputes_both_papers(tmp_path):
    shown = run("reference", "--json", str(tmp_path / "out.json"))
    assert shown.code == 0, shown.err
    assert "tax removed         −222.4 (−237.5 to −208.6)" in shown.out
    lines = shown.out.splitlines()
    said = [line for line in lines if line.startswith("arXiv ")]
    assert len(said) == 2
    assert "25 reproduced, 13 reproduced under another metric, 2 not reproduced" in said[0]
    assert "…" not in shown.out  # nothing is cut short, however narrow the terminal
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [study["study"] for study in written] == ["2601.18217", "2603.12011"]
    assert written[0]["counts"]["not reproduced"] == 2
    one = run("reference", "2603.12011").out
    assert "not checkable" in one
    assert "2601.18217" not in one


PLAYED = ["tax", "--base", "expert", "--tuned", "random", "--source", "sokoban", "-t", "crafting", "--tasks", "8"]


def test_tax_writes_a_report_folder_with_its_gate(tmp_path):
    out = tmp_path / "tax"
    (tmp_path / "gate.yaml").write_text("tax: {fail: 1 %}")
    done = run(*PLAYED, "--interim-analyses", "1", "--out", out, "--gate", tmp_path / "gate.yaml")
    assert done.code == 3, done.out
    assert f"wrote {out / 'report.html'}" in done.out
    assert {path.name for path in out.iterdir()} == {
        "report.html", "result.json", "figures", "episodes", "tables", "base", "tuned",
    }  # fmt: skip
    assert len(read_episodes(out / "base")) == len(read_episodes(out / "tuned")) == 16
    assert json.loads((out / "result.json").read_text())["source"] == "sokoban"
    page = (out / "report.html").read_text()
    assert "What training on sokoban cost" in page
    assert "Release gate" in page
    assert "How lost tasks fail" in page
    assert (out / "episodes" / "index.js").is_file()


def test_a_report_goes_to_the_temporary_folder_when_the_disk_is_full(tmp_path, monkeypatch):
    def write(path, *_, real=Path.write_text, **settings):
        if path.name == "report.html" and path.parent.parent == tmp_path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, *_, **settings)

    monkeypatch.setattr(Path, "write_text", write)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = run(*PLAYED, "--interim-analyses", "1", "--out", tmp_path / "tax")
    assert done.code == 1
    kept = re.search(r"/tax could not be written \(No space left on device\); it was written to (\S+) inst", done.err)
    assert kept is not None, done.err
    assert len(done.err.splitlines()) == 1
    assert (Path(kept[1]) / "report.html").is_file()


@pytest.mark.parametrize(
    ("more", "says"), [([], "no part of a result"), (["--forecast-only"], "--out is for a tax that is played")]
)
def test_tax_refuses_a_folder_with_other_files(tmp_path, more, says):
    (tmp_path / "notes.txt").write_text("mine")
    refused = run(*PLAYED, *more, "--out", tmp_path)
    assert refused.code == 2
    assert says in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_every_command_that_measures_writes_a_table(files, tmp_path):
    commands = {
        "evaluate": ["random", "-d", "sokoban", "--tasks", 4],
        "tax": ["--base", "expert", "--tuned", "random", "--source", "sokoban", "-t", "crafting", "--tasks", 4],
        "diagnose": [files / "random", files / "expert"],
        "probe": ["sokoban", "--policy", "random", "--trajectories", 4],
        "diversity": ["sokoban", "crafting", "--policy", "random", "--trajectories", 4],
        "advise": ["sokoban", "--target", "crafting", "--policy", "random", "--trajectories", 4],
    }
    for command, arguments in commands.items():
        shown = run(command, *arguments, "--table", tmp_path / f"{command}.csv")
        assert shown.code == 0, shown.err
        head, *rows = (tmp_path / f"{command}.csv").read_text().splitlines()
        assert rows
        assert "_low" in head or ",low," in head

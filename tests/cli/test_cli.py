"""The command line as a person meets it: help with examples, one clear line for what cannot be, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.main import get_command

from command import run
from gentax.cli.app import app

COMMANDS = [
    "demo", "domains", "check", "play", "rollout", "evaluate", "verify", "diagnose", "probe", "diversity", "advise",
    "train", "merge", "tax", "reference", "study run", "study plan", "study compare", "study check", "study clean",
    "study fit", "view", "base build",
]  # fmt: skip


def test_the_installed_command_starts():
    command = [sys.executable, "-c", "from gentax.cli import main; main()"]
    refused = subprocess.run([*command, "evaluat"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Did you mean 'evaluate'" in refused.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    shown = run(*command.split(), "--help")
    assert shown.code == 0
    assert "Example" in shown.out
    assert f"gentax {command}" in " ".join(shown.out.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_does(command):
    found = get_command(app)
    for name in command.split():
        found = found.commands[name]
    assert not [param.name for param in found.params if len((param.help or "").split()) < 3 and param.name != "help"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["play", "sokobn"], "did you mean 'sokoban'"),
        (["play", "sokoban:6x7x8"], "6x7x8"),
        (["play", "sokoban", "--expert", "--policy", "base"], "exclude each other"),
        (["play", "sokoban", "--xsb", "nowhere.xsb"], "nowhere.xsb"),
        (["evaluate", "bse", "-d", "sokoban"], "no model folder 'bse'; did you mean 'base'"),
        (["evaluate", "random", "-d", "sokoban", "--tasks", "1"], "at least 2 tasks"),
        (["evaluate", "random", "-d", "sokoban", "--split", "tst"], "did you mean 'test'"),
        (["evaluate", "random", "-d", "sokoban", "--context", "window"], "window(k)"),
        (["evaluate", "base", "-d", "sokoban", "--action-format", "tool_calls"], "offers no tools"),
        (["evaluate", "random", "-d", "sokoban", "--action-format", "jsn"], "did you mean 'json'"),
        (["evaluate", "random", "-d", "sokoban", "--prompt-template", "no.jinja"], "no prompt template no.jinja"),
        (["evaluate", "base", "-d", "sokoban", "--max-new-tokens", "5000"], "the context of base holds 4096 tokens"),
        (["train", "-s", "rollout.top_p=0.9"], "rollout: `top_p` is for evaluation only"),
        (["train", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "-s", "stepss=3"], "did you mean 'max_steps'"),
        (["train", "-s", "source=sokobn"], "did you mean 'sokoban'"),
        (["train", "-s", "rollout.thinkin=true"], "did you mean 'thinking'"),
        (["tax", "--tuned", "nowhere", "--source", "sokoban"], "no model folder 'nowhere'"),
        (["tax", "--tuned", "random", "--source", "sokoban", "-t", "crafting", "--drop", "0"], "between 0 and 100"),
        (["tax", "--tuned", "random", "--source", "sokoban", "-t", "sokoban"], "at least one other domain"),
        (["tax", "--tuned", "random", "--base", "a.json", "--source", "sokoban"], "compared with another one"),
        (["tax", "--tuned", "b.json", "--base", "a.json", "--source", "sokoban"], "a.json"),
        (["tax", "--tuned", "base", "--source", "sokoban", "--forecast-only", "--fit", "sorces"], "'sources'"),
        (["tax", "--tuned", "random", "--source", "sokoban", "--forecast-only"], "random has none"),
        (["tax", "--tuned", "random", "--source", "sokoban", "--temperature", "nan"], "temperature"),
        (["tax", "--tuned", "random", "--source", "sokoban", "-t", "crafting", "--pilot", "8"], "give --drop"),
        (
            ["tax", "--tuned", "random", "--source", "sokoban", "--drop", "5", "--pilot", "no.json"],
            "no.json is no file",
        ),
        (["tax", "--tuned", "random", "--source", "sokoban", "--touched", "sokobn"], "did you mean 'sokoban'"),
        (["advise", "sokobn"], "did you mean 'sokoban'"),
        (["advise", "sokoban", "-t", "sokoban"], "one other domain"),
        (["advise", "sokoban", "sokoban:6x6"], "named twice"),
        (["evaluate", "random", "-d", "sokoban", "--json", "/dev/null/x.json"], "nothing can be written"),
        (["study", "run", "dem"], "did you mean 'demo'"),
        (["evaluat"], "Did you mean 'evaluate'"),
        (["evaluate", "--taks", "3"], "--tasks"),
        (["rollout", "sokoban"], "'--out'"),
        (["evaluate", "random", "--tasks", "many"], "'--tasks'"),
        (["rollout", "sokoban", "--samples", "99999999999999", "--out", "x.gz"], "'--samples'"),
        (["rollout", "sokoban", "--split", "tets", "--out", "x.gz"], "did you mean 'test'"),
        (["study", "fit", "demo", "--out", "x.json", "--runs", "nowhere"], "stages are not done"),
        (["check", "sokobn"], "did you mean 'sokoban'"),
        (["check", "sokoban:6x6-lnog"], "did you mean '6x6-long'"),
        (["check", "sokoban", "--only", "rewrds"], "did you mean 'rewards'"),
        (["check", "sokoban", "--tasks", "0"], "tasks must be more than 0"),
        (["check", "sokoban", "--json", "."], "--json takes a file"),
        (["merge", "base", "base", "--out", "x", "--weight", "0.5"], "--weight is for --method interpolate"),
        (["merge", "base", "base", "--out", "x", "--method", "meen"], "did you mean 'mean'"),
        (["merge", "base", "nowhere", "--out", "x"], "no model folder 'nowhere'"),
        (["probe", "sokobn"], "did you mean 'sokoban'"),
        (["probe", "sokoban:7x7x7"], "7x7x7"),
        (["probe", "nowhere:make"], "nowhere"),
        (["probe", "sokoban", "--policy", "bse"], "did you mean 'base'"),
        (["probe", "sokoban", "--wrap", "distrct"], "did you mean 'distract'"),
        (["probe", "crafting", "--wrap", "horizon(999)"], "999"),
        (["probe", "sokoban", "--plot", "axes.jpg"], ".svg, .png, .pdf"),
        (["probe", "sokoban", "--table", "axes.xlsx"], ".csv or .parquet"),
        (["probe", "sokoban", "--trajectories", "10", "--samples", "3"], "not 10 with samples 3"),
        (["diversity", "sokoban", "sokoban"], "2 or more domains"),
        (["diversity", "sokoban", "babyai", "--tuned", "nowhere"], "no model folder 'nowhere'"),
        (["diversity", "sokoban", "babyai", "--tuned", "base", "--policy", "random"], "random has none"),
        (["diversity", "sokoban", "babyai", "--weight", "sokobn=2"], "did you mean 'sokoban'"),
        (["diversity", "sokoban", "babyai", "--weight", "sokoban"], "as in sokoban=2"),
        (["diversity", "sokoban", "babyai", "--weight", "sokoban=lots"], "must be a number, not 'lots'"),
        (["diversity", "sokoban", "babyai", "--weight", "sokoban=nan"], "at least 0"),
        (["diversity", "sokoban", "babyai", "--weight", "sokoban=0"], "one of them more"),
        (["reference", "2603.1201"], "did you mean '2603.12011'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_writes_nothing(args, says, tmp_path):
    done = run(*args, cwd=tmp_path)
    assert done.code == 2, done.err
    assert says in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert done.err.startswith("gentax: ")
    assert "steps/s" not in done.out  # nothing was played
    assert not list(tmp_path.iterdir())


def test_play_by_hand_with_help_and_hints(tmp_path):
    first = run("play", "sokoban", "--expert", cwd=tmp_path)
    moves = [line.split("> ")[1].strip() for line in first.out.splitlines() if "> " in line]
    assert "success" in first.out
    second = run("play", "sokoban", cwd=tmp_path, stdin="?\n!\n\nfyl\n" + "\n".join(moves).upper() + "\n")
    assert second.code == 0
    assert f"success after {len(moves)} steps" in second.out
    assert "'fyl' is not listed here, so no step was taken. Nearest: " in second.out


@pytest.mark.parametrize("again", ["", "fly"])
def test_play_asks_before_sending_an_unlisted_action(again, tmp_path):
    done = run("play", "sokoban", cwd=tmp_path, stdin=f"fly\n{again}\nq\n")
    assert "Unknown action" in done.out
    assert "left after 1 steps" in done.out
    near = run("play", "sokoban", cwd=tmp_path, stdin="dwon\nq\n")
    assert "Nearest: down" in near.out
    assert "left after 0 steps" in near.out


def test_play_can_be_quit(tmp_path):
    for stdin in ("q\n", ""):
        assert "left after 0 steps" in run("play", "sokoban", cwd=tmp_path, stdin=stdin).out


BROKEN_ENV = """
from conftest import Toy

class Broken(Toy):
    def _step(self, action):
        raise OSError("\\x1b[2J[bold]gone")
"""
QUICK = ("--tasks", "4", "--starts", "20", "--seconds", "5", "--json", "out.json")


def test_a_sound_environment_passes_the_check(tmp_path):
    done = run("check", "crafting:depth1-read0", *QUICK, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "crafting at level depth1-read0: every check passed" in done.out
    checks = json.loads((tmp_path / "out.json").read_text())["checks"]
    assert {check["verdict"] for check in checks} == {"passed"}
    assert all(check["name"] in done.out for check in checks)


def test_a_broken_environment_fails_the_check_and_cannot_write_to_the_terminal(tmp_path):
    (tmp_path / "broken_env.py").write_text(BROKEN_ENV)
    done = run("check", "broken_env:Broken", *QUICK, "--only", "any string", cwd=tmp_path)
    assert done.code == 1, done.err
    assert "1 of 1 checks failed" in done.out
    assert "[bold]gone" in done.out
    assert "\x1b[2J" not in done.out
    assert json.loads((tmp_path / "out.json").read_text())["passed"] is False


def test_a_merged_model_is_written(tmp_path):
    done = run("merge", "base", "base", "--out", "out", "--method", "mean", cwd=tmp_path)
    assert done.code == 0
    assert "--base base --tuned out" in done.out
    assert done.err == ""  # no progress bar of transformers
    assert (tmp_path / "out" / "merge.json").is_file()


def test_play_watches_a_policy_with_the_rollout_settings():
    shown = run("play", "babyai", "--policy", "base", "--no-thinking", "--max-new-tokens", "2")
    assert shown.code == 0
    assert "(cut off)" in shown.out
    assert "(refused)" not in shown.out


@pytest.mark.parametrize("command", ["evaluate", "play", "rollout", "tax"])
def test_help_shows_option_names_unabbreviated_at_80_columns(command):
    shown = run(command, "--help", columns=80)
    names = [
        line.split("--", 1)[1].split()[0] for line in shown.out.splitlines() if line.startswith("│") and "--" in line
    ]
    assert "trust-remote-code" in names
    assert not [name for name in names if "…" in name]


@pytest.mark.parametrize("policy", [("expert",), ("--policy", "expert")], ids=" ".join)
def test_an_evaluation_is_printed_and_written(tmp_path, policy):
    done = run("evaluate", *policy, "-d", "sokoban", "--tasks", "8", "--json", "out.json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "100.0" in done.out
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["policy"] == "expert"
    assert written["domains"]["sokoban"]["success"]["value"] == 100.0


def test_a_tax_is_planned_and_played_with_interim_analyses(tmp_path):
    played = ["--source", "sokoban", "-t", "crafting", "--tasks", "24", "--interim-analyses", "3", "--json", "tax.json"]
    done = run("tax", "--base", "expert", "--tuned", "random", *played, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "detect a mean drop of" in done.out
    assert "interim analysis 1 of 3: tax" in done.out
    assert "stopped after" in done.out
    assert "This checkpoint lost" in done.out
    assert "changes tested are significant (Holm's correction)" in done.out
    assert done.out.index("  tax: 0/") < done.out.index("interim analysis 1 of 3")
    assert "% solved" not in done.out
    written = json.loads((tmp_path / "tax.json").read_text())
    assert written["analysis"] < written["analyses"] == 3
    assert written["significant"] == ["crafting"]


def test_advice_is_ranked_and_says_what_it_rests_on(tmp_path):
    options = ["-t", "babyai", "--policy", "random", "--trajectories", "8", "--budget", "60", "--json", "a.json"]
    done = run("advise", "sokoban", "crafting", *options, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "sokoban + crafting" in done.out
    said = [line for line in done.out.splitlines() if "episodes" not in line]
    assert said[0].startswith("Fit 'sources' cannot tell these candidates apart; ")
    assert "a mixture is taken to lie at the mean of its parts" in said[-2]
    assert "started from 'base', not 'random'" in said[-2]
    heads = next(line for line in said if line.startswith("train on"))
    assert "rank" not in heads  # every row would say the same
    assert "forecast" not in heads
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["fit"]["rows"]
    assert {tuple(a["targets"]) for a in written["advice"]} == {("babyai",)}


def test_table_cells_are_not_read_as_markup(capsys):
    from gentax.cli.output import print_table

    print_table("[/oops] \x1b[2J", ["name", "n"], [["\\[red]x[/red]", 1], ["a" * 200, 2]])
    out = capsys.readouterr().out
    assert "[/oops]" in out
    assert "[red]x[/red]" in out
    assert "\x1b" not in out
    assert "a" * 200 in out


def test_rollout_writes_episodes(tmp_path):
    from gentax.core.episode import read_episodes

    done = run("rollout", "sokoban", "--policy", "expert", "--tasks", "3", "--out", "e.jsonl.gz", cwd=tmp_path)
    assert done.code == 0, done.err
    episodes = read_episodes(tmp_path / "e.jsonl.gz")
    assert [e.success for e in episodes] == [True] * 3
    assert {e.task.split for e in episodes} == {"test"}  # as evaluate and tax play
    assert "success in 3 of 3" in done.out
    one = run("rollout", "sokoban", "--policy", "random", "--tasks", "1", "--out", "e.jsonl.gz", cwd=tmp_path)
    assert one.code == 0, one.err


def test_rollout_and_evaluate_share_their_defaults():
    import inspect

    from gentax.cli.evaluate import evaluate
    from gentax.cli.rollout import rollout

    ours, theirs = (inspect.signature(command).parameters for command in (rollout, evaluate))
    shared = set(ours) & set(theirs) - {"tasks", "policy", "domain"}
    assert {"split", "temperature", "samples", "seed"} <= shared
    assert {name: ours[name].default for name in shared} == {name: theirs[name].default for name in shared}


def test_text_wraps_in_a_terminal_only(capsys, monkeypatch):
    from gentax.cli.output import console, print_text

    print_text("word " * 40)
    assert len(capsys.readouterr().out.splitlines()) == 1
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "_width", 78)
    print_text("word " * 40)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1
    assert {part for line in lines for part in line.split()} == {"word"}


def test_truncated_replies_are_not_counted_as_invalid():
    shown = run("evaluate", "base", "-d", "crafting", "--tasks", "2", "--max-new-tokens", "4", "--allow-unreadable")
    assert shown.code == 0
    header, row = (line.split() for line in shown.out.splitlines() if line.startswith(("domain ", "crafting ")))
    assert header[-3:] == ["invalid", "truncated", "errors"]
    assert row[-3:] == ["0%", "100%", "0"]
    assert "Warning: 100.0% of the replies of base were cut off" in shown.out


def test_rollout_warns_of_truncated_replies(tmp_path):
    options = ["--policy", "base", "--tasks", "2", "--max-new-tokens", "2", "--allow-unreadable", "--out", "e.jsonl.gz"]
    assert "Warning: 100.0% of the replies of base were cut off" in run("rollout", "babyai", *options, cwd=tmp_path).out


def test_every_setting_of_training_is_explained_and_there_are_few(tmp_path):
    lines = run("train", "--settings", "--json", "settings.json", cwd=tmp_path).out.splitlines()[:-1]
    names = json.loads((tmp_path / "settings.json").read_text())
    settings = [name for name in names if not any(other.startswith(f"{name}.") for other in names)]  # no groups
    assert len(settings) == 46
    assert len(lines) == 2 * len(names)
    assert not [name for name, doc in zip(lines[::2], lines[1::2], strict=True) if not doc.strip()]

"""`pip install gentax` without extras: it measures servers and logs, and names the command for all that is missing.

One process, from which the packages of every extra are taken away, runs the commands here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from chat_server import ChatServer, listed
from gentax.cli.app import app
from gentax.core.errors import ExitCode
from gentax.core.imports import EXTRAS

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = sorted({module for extra in EXTRAS.values() for module in extra.modules})
CHILD = """
import json, sys
from importlib.machinery import PathFinder
class Without:
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in MODULES else PathFinder.find_spec(name, path, target)
MODULES = json.loads(sys.argv[1])
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
from command import run
said = [run(*command) for command in json.load(sys.stdin)]
import gentax
for name in set(gentax.__all__) - {"train"}:
    getattr(gentax, name)
try:
    gentax.train
except gentax.UsageError as error:
    print(json.dumps([said, str(error)]))
"""


def leaves(command, path=()):
    """Every command, as the words that are typed."""
    if not hasattr(command, "commands"):
        return {path: command}
    return {key: leaf for name, one in command.commands.items() for key, leaf in leaves(one, (*path, name)).items()}


COMMANDS = leaves(typer.main.get_command(app))
LOGS = ",".join(str(TESTS / "integrations" / "data" / f"lm_eval_capitals_{when}.jsonl") for when in ("before", "after"))
LOCAL = 'needs torch, transformers and 3 more: pip install "gentax[local]"'
BARE = 'torch is not installed: pip install "gentax[local]"'
BABYAI = "domain 'babyai' needs minigrid: pip install \"gentax[domains]\""
MISSING = {  # a command, and what it says of what is missing
    "evaluate base -d sokoban": LOCAL,
    "evaluate a.gguf -d sokoban": 'needs torch, transformers and 5 more: pip install "gentax[gguf,local]"',
    "evaluate random -d babyai": BABYAI,
    "evaluate random -d sokoban --table a.parquet": 'needs pyarrow: pip install "gentax[tables]"',
    "rollout sokoban --log inspect --out a.eval": 'needs inspect_ai: pip install "gentax[inspect]"',
    "play sokoban --policy base": LOCAL,
    "tax --source sokoban --tuned random --sensitivity": 'needs statsmodels: pip install "gentax[sensitivity]"',
    "tax --source sokoban --tuned random --base random -t crafting --forecast-only": BARE,
    "probe sokoban --policy random": LOCAL,
    "diversity sokoban crafting --policy random": 'and 4 more: pip install "gentax[domains,local]"',
    "advise sokoban crafting --policy random": LOCAL,
    "train --out a": LOCAL,
    "merge base base --out a": BARE,
    "base build --out a": BARE,
    "demo": 'needs minigrid, textworld_express and 5 more: pip install "gentax[domains,local]"',
    "study run demo": LOCAL,
    "study plan demo": BABYAI,
    "study fit sources --out a": 'needs scienceworld: pip install "gentax[domains]"',
}
WORK = {
    "domains": "domains --json domains.json",
    "logs": f"tax --source sokoban --results capitals:acc={LOGS} --json logs.json",
    "page": "tax --source sokoban --tuned expert --base random -t crafting --tasks 4 --interim-analyses 1 --out page",
    "server": "evaluate {url} -d sokoban -d crafting -d webshop --tasks 2 --json server.json",
}


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """The folder where it ran, what each command said, and why `gentax.train` could not be had."""
    folder = tmp_path_factory.mktemp("core")
    with ChatServer(listed) as server:
        work = {name: text.format(url=server.url) for name, text in WORK.items()}
        typed = [*(" ".join((*words, "--help")) for words in COMMANDS), *MISSING, *work.values()]
        done = subprocess.run(
            [sys.executable, "-c", CHILD, json.dumps(MODULES)],
            input=json.dumps([text.split() for text in typed]),
            cwd=folder,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(TESTS)])},
        )
    assert done.returncode == 0, done.stderr[-2000:]
    answers, training = json.loads(done.stdout.splitlines()[-1])
    said = dict(zip(typed, answers, strict=True))
    return folder, said | {name: said[text] for name, text in work.items()}, training


@pytest.mark.slow
def test_every_command_shows_its_help(core):
    _, said, _ = core
    for words in COMMANDS:
        code, out, _ = said[" ".join((*words, "--help"))]
        assert code == 0, words
        assert f"Usage: gentax {' '.join(words)}" in " ".join(out.split())


@pytest.mark.slow
@pytest.mark.parametrize("command", MISSING)
def test_what_is_missing_is_named_with_the_command_that_installs_it(core, command):
    code, _, err = core[1][command]
    assert MISSING[command] in err
    assert len([line for line in err.splitlines() if line.startswith("gentax: ")]) == 1
    assert "Traceback" not in err
    assert code == ExitCode.USAGE


@pytest.mark.slow
def test_training_in_python_is_refused_with_the_same_sentence(core):
    assert core[2] == f"training {LOCAL}"


@pytest.mark.slow
def test_it_measures_servers_and_logs_and_writes_the_page(core):
    folder, said, _ = core
    assert {name: said[name][0] for name in WORK} == dict.fromkeys(WORK, 0)
    domains = json.loads((folder / "domains.json").read_text())
    assert [name for name, one in domains.items() if one["ready"]] == ["sokoban", "crafting", "webshop"]
    assert domains["sciworld"]["enable"] == 'pip install "gentax[domains]"'
    assert json.loads((folder / "logs.json").read_text())["tax"]
    assert "<svg" in (folder / "page" / "report.html").read_text(encoding="utf-8")
    played = json.loads((folder / "server.json").read_text())["domains"]
    assert {name: one["episodes"] for name, one in played.items()} == {"sokoban": 2, "crafting": 2, "webshop": 2}


def packages(requirements):
    return {re.split(r"[\[<>=~!;]", text)[0].replace("_", "-").lower() for text in requirements} - {"gentax"}


def test_the_extras_are_those_of_the_package():
    """The names of packages differ from those of modules in two cases."""
    names = {"sklearn": "scikit-learn", "fast_downward": "fast-downward-textworld"}
    declared = PROJECT["optional-dependencies"]
    for name, extra in EXTRAS.items():
        assert packages(declared[name]) == {names.get(module, module.replace("_", "-")) for module in extra.modules}
        assert not packages(declared[name]) & packages(PROJECT["dependencies"])
    assert set(declared) - set(EXTRAS) == {"all", "dev", "docs", "gemma"}
    (everything,) = declared["all"]
    assert set(re.findall(r"\w+", everything)) == set(EXTRAS) - {"alfworld", "vllm"} | {"gentax"}


def test_the_extras_are_in_the_documentation():
    page = (ROOT / "docs" / "how-to" / "install.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page.partition("## What it brings")[0], re.MULTILINE)
    assert sorted(listed) == sorted(PROJECT["optional-dependencies"])


# What programs that run `gentax` rely on.

NO_RESULT = {("play",), ("view",), ("study", "fit")}  # for a person, a server, and one whose --out is JSON


@pytest.mark.parametrize("words", sorted(set(COMMANDS) - NO_RESULT), ids=" ".join)
def test_a_command_that_prints_a_result_writes_it_as_json(words):
    assert "--json" in [flag for option in COMMANDS[words].params for flag in option.opts]


def test_exit_codes_are_those_of_the_page():
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)] == [*ExitCode]
    for file in (ROOT / "src" / "gentax").rglob("*.py"):
        assert not re.search(r"(sys\.exit|typer\.Exit|SystemExit)\(-?\d", file.read_text(encoding="utf-8")), file

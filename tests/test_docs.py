"""The documentation does what it says: every code block is executed, or checked by the real command line.

What happens to a block is decided by its language and, where it has one, by the comment `<!-- test: … -->` before it:

- Python is executed, in one namespace a page. `shortened by a=1, b=2` overrides these settings and arguments.
- `console` needs a comment. `run`: every command is run. `args --tasks 2; note`: every command is run with these
  arguments added. `parse, reason`: the command line accepts the command and its settings; nothing is started.
- YAML needs a comment. `config`: it is read as a training config. `study`: it is read and planned as a study.
  `gate`: it is read as a release gate. `workflow`: its commands are parsed.
- `toml`, `jinja`, `text` (output): parsed, compiled, not executed. A block with a title is also written to that file.
"""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import importlib.util
import inspect
import re
import shlex
import sys
import tomllib
import typing
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pytest
import typer
import yaml

import gentax
from chat_server import ChatServer
from command import run
from gentax.core.settings import read_settings
from gentax.domains import domains
from gentax.training import TrainConfig

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
GENERATED = [DOCS / "domains", DOCS / "results" / "published-tables.md"]  # by scripts, which have tests of their own
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    if page not in GENERATED and page.parent not in GENERATED
]
NOT_OURS = {"accelerate", "export", "git", "hf", "split", "vf-eval"}  # commands that are not run and not parsed
SERVER = "http://localhost:8000/v1"  # replaced by the address of a stand-in

BLOCK = re.compile(
    r'(?:<!-- test: (?P<how>.*?) -->\n)?^```(?P<language>\w*)(?: title="(?P<title>.*?)")?\n(?P<body>.*?)\n```$',
    re.M | re.S,
)


class Block(NamedTuple):
    line: int
    language: str
    how: str  # the first word of the comment; "" without one
    note: str  # the rest of the comment
    title: str
    body: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        how, _, note = (match["how"] or "").partition(" ")
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(line, match["language"], how.rstrip(","), note.strip(), match["title"] or "", match["body"]))
    assert 2 * len(found) == len(re.findall(r"^```", text, re.M)), f"{page.name}: a block that is not recognised"
    return found


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def is_executed(block: Block) -> bool:
    return block.language == "python" or block.how in ("run", "args")


WITH_BLOCKS = [
    pytest.param(page, marks=[pytest.mark.slow] if any(map(is_executed, blocks(page))) else [], id=name)
    for page, name in zip(PAGES, names(PAGES), strict=True)
    if blocks(page)
]


@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_the_code_blocks_of_a_page_work(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    namespace: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page):
        if block.title:
            (tmp_path / block.title).write_text(block.body + "\n", encoding="utf-8")
    for block in blocks(page):
        check(block, namespace, f"{page.name}:{block.line}")


def check(block: Block, namespace: dict[str, Any], where: str) -> None:
    match block.language, block.how:
        case "python", "" | "shortened":
            with pytest.MonkeyPatch.context() as patch:
                if block.how:
                    shorten(patch, dict(pair.split("=") for pair in block.note.removeprefix("by ").split(", ")))
                exec(compile(block.body, where, "exec", dont_inherit=True), namespace)
        case "console", "run" | "args":
            for command in commands(block):
                assert command[0] == "gentax", f"{where}: only gentax is run"
                run_command([*command[1:], *shlex.split(block.note.partition(";")[0])])
        case "console", "parse":
            assert block.note, f"{where}: say why this is not run"
            for command in commands(block):
                parse_command(command, where)
        case "yaml", "config":
            read_settings(TrainConfig, yaml.safe_load(block.body), where)
        case "yaml", "study":
            from gentax.studies.plan import make_plan
            from gentax.studies.study import read_study

            assert make_plan(read_study(block.title)).stages
        case "yaml", "gate":
            from gentax.metrics.gate import read_gate

            read_gate(block.title)
        case "yaml", "workflow":  # of GitHub's actions
            jobs = yaml.safe_load(block.body)["jobs"]
            runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
            for line in "\n".join(runs).splitlines():
                parse_command(shlex.split(line.partition("||")[0]), where)
        case "toml", "":
            tomllib.loads(block.body)
        case "jinja", "":
            jinja2.Environment().parse(block.body)
        case "text", "":
            pass
        case _:
            pytest.fail(f"{where}: no way to check a block of {block.language!r} with {block.how!r}")


def commands(block: Block) -> list[list[str]]:
    """Return the commands of a block, each split into words. Every line belongs to one."""
    lines = block.body.replace("\\\n", " ").splitlines()
    assert all(line.startswith("$ ") for line in lines), "output goes into a block of its own"
    return [shlex.split(line[2:], comments=" #" in line) for line in lines]


def shorten(patch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    """Make `TrainConfig`, `tax` and `evaluate` of `gentax` take these values, each where it has such a name."""
    overrides = {name: yaml.safe_load(value) for name, value in values.items()}
    used = set()
    for name in ("TrainConfig", "tax", "evaluate"):
        original = getattr(gentax, name)
        known = set(inspect.signature(original).parameters)
        mine = {key: value for key, value in overrides.items() if key in known}
        used |= set(mine)
        patch.setattr(gentax, name, lambda *a, _original=original, _mine=mine, **k: _original(*a, **{**k, **_mine}))
    assert used == set(overrides), f"nothing takes {set(overrides) - used}"


def run_command(words: list[str]) -> None:
    with ChatServer(lambda request: "<action>go forward</action>", models=["base", "adapter", "my-model"]) as server:
        done = run(*(word.replace(SERVER, server.url) for word in words), cwd=Path.cwd())
    assert done.code == 0, f"gentax {shlex.join(words)}: {done.err}"


def parse_command(words: list[str], where: str) -> None:
    """Check a command without doing its work."""
    script = ROOT / next((word for word in words if word.startswith("benchmarks/") and word.endswith(".py")), "none")
    if "gentax" in words and words[0] in ("gentax", "torchrun", "accelerate"):
        parse_gentax(words[words.index("gentax") + 1 :])
    elif words[0] == "python" and script.exists():
        options = {word for word in words if word.startswith("--")}
        source = script.read_text(encoding="utf-8")
        assert all(f'"{option}"' in source for option in options), f"{where}: {script.name} has no such option"
    elif words[:2] in (["pip", "install"], ["pip", "download"]):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for extras in re.findall(r"gentax\[(.*?)]", " ".join(words)):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), f"{where}: no such extra"
    elif words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), f"{where}: no such target"
    else:
        assert words[0] in NOT_OURS, f"{where}: what is {words[0]!r}?"


def parse_gentax(words: list[str], need_all: bool = True) -> None:
    """Let the command line read a command: its name, options, choices and types, and the settings of `train`."""
    from gentax.cli.app import app

    command: Any = typer.main.get_command(app)
    context = command.make_context("gentax", list(words))
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        name, command, rest = command.resolve_command(context, rest)
        try:
            context = command.make_context(name, rest, parent=context)
        except Exception as error:
            if type(error).__name__ != "MissingParameter" or need_all:
                raise
            return
    if name == "train":
        read_train_config(context.params)


def read_train_config(params: dict[str, Any]) -> None:
    """Read the config that `gentax train` would train with, up to where training would start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gentax.training.train", lambda config, *_, **__: Path("runs/none"))
        options = [option for item in params["setting"] or () for option in ("-s", item)]
        recipe = params["recipe"] or params.get("config")
        run_command(["train", *([recipe] if recipe else []), *options])


INLINE = [
    (page, command.replace("\n", " "))
    for page in PAGES
    for command in re.findall(r"`gentax ([^`…]+)`", page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("command", sorted({command for _, command in INLINE}))
def test_commands_in_sentences_exist(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parse_gentax(shlex.split(command), need_all=False)


@cache
def setting_names(config: type = TrainConfig, prefix: str = "") -> frozenset[str]:
    found = set()
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        found.add(prefix + field.name)
        for kind in (hints[field.name], *typing.get_args(hints[field.name])):
            if dataclasses.is_dataclass(kind):
                found |= setting_names(kind, f"{prefix}{field.name}.")
    return frozenset(found)


GROUPS = "|".join(sorted({name.partition(".")[0] for name in setting_names() if "." in name}))


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_settings_in_a_sentence_exist(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(rf"`((?:{GROUPS})\.[a-z_]+)(?::[^`]*)?`", text))
    assert named <= setting_names()


def test_settings_and_commands_are_found_in_the_pages():
    """The two tests above look at something."""
    assert len(INLINE) > 30
    assert any("`forgetting." in page.read_text(encoding="utf-8") for page in PAGES)


def test_every_command_is_on_the_page_of_commands():
    from gentax.cli.app import app

    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    assert [name for name in typer.main.get_command(app).commands if f"`gentax {name}" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_no_page_has_a_placeholder(page):
    assert not re.search(r"PENDING|TODO|FIXME", page.read_text(encoding="utf-8"))


def test_the_readme_has_at_most_900_words():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "benchmarks" / "README.md"], ids=lambda page: page.name)
def test_internal_links_have_targets(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(BLOCK, "", page.read_text(encoding="utf-8"))):
        if not target.startswith("http"):
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


@pytest.mark.slow
def test_the_site_is_built_without_warnings(tmp_path):
    pytest.importorskip("mkdocs", reason='pip install -e ".[docs]"')
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    assert "generalization tax" in (tmp_path / "index.html").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[.+\]\((\S+?)\)", (tmp_path / "llms.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
    whole = (tmp_path / "llms-full.txt").read_text(encoding="utf-8")
    for page in listed:
        written = (tmp_path / page).read_text(encoding="utf-8").strip()
        assert written in whole
        assert written == (DOCS / page).read_text(encoding="utf-8").strip()


# Examples in docstrings.

EXAMPLE = re.compile(r">>> (?!.*\+SKIP)")
WITH_EXAMPLES = sorted(file for file in (ROOT / "src").rglob("*.py") if EXAMPLE.search(file.read_text("utf-8")))


@pytest.mark.parametrize("file", WITH_EXAMPLES, ids=lambda file: str(file.relative_to(ROOT / "src")))
def test_docstring_examples_are_true(file):
    name = ".".join(file.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed


# Notebooks.


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda file: file.stem)
def test_a_notebook_runs(notebook, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    content = nbformat.read(notebook, as_version=4)
    assert all(not cell.get("outputs") for cell in content.cells), "commit notebooks without outputs"
    nbclient.NotebookClient(content, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()


# Generated pages.


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("domain_pages", DOCS / "domain_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["sokoban", "crafting", "webshop", "babyai"])
def test_generated_pages_are_up_to_date(pages, name):
    assert (DOCS / "domains" / f"{name}.md").read_text(encoding="utf-8") == pages.page(name)


def test_every_domain_has_a_page_and_a_transcript():
    overview = (DOCS / "domains" / "README.md").read_text(encoding="utf-8")
    for name in domains():
        text = (DOCS / "domains" / f"{name}.md").read_text(encoding="utf-8")
        assert "[success, " in text
        assert f"## {name}\n" in overview


def test_the_example_file_is_the_code_on_the_page():
    example = (ROOT / "examples" / "my_policy.py").read_text(encoding="utf-8")
    assert example in (DOCS / "how-to" / "policy.md").read_text(encoding="utf-8")

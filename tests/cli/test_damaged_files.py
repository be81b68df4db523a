"""Whatever is done to a file, the commands that read it end in one line that names it, or do without it."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from command import run

SHORT = ("max_steps=2", "tasks_per_step=2", "num_generations=2", "eval_steps=0", "save_steps=1", "source=crafting")


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _other_type(file: Path) -> None:
    value = b'[{"a": null}, 3]\n'
    file.write_bytes(gzip.compress(value) if file.suffix == ".gz" else value)


def _wrong_values(file: Path) -> None:
    value = b'{"format": 1, "result": 3, "step": "x", "suite": {}, "model_type": [], "steps": 1}\n'
    file.write_bytes(gzip.compress(value) if file.suffix == ".gz" else value)


def _binary(file: Path) -> None:
    file.write_bytes(b"\x1f\x8b" + bytes(range(256)) * 20)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "in").touch()


def _gone(file: Path) -> None:
    file.unlink()


DAMAGE = (_empty, _cut, _other_type, _wrong_values, _binary, _folder, _gone)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A finished run of training, and one that was stopped."""
    root = tmp_path_factory.mktemp("trained")
    options = [part for one in SHORT for part in ("-s", one)]
    assert run("train", "--out", root / "run", *options).code == 0
    shutil.copytree(root / "run", root / "stopped")
    (root / "stopped" / "done.json").unlink()
    return root


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """Episodes, and the result of a suite."""
    root = tmp_path_factory.mktemp("measured")
    assert run("rollout", "crafting", "--policy", "random", "--tasks", "4", "--out", root / "e.jsonl.gz").code == 0
    assert run("evaluate", "random", "--suite", "v2", "-d", "crafting", "--json", root / "suite.json").code == 0
    return root


def _commands(root: Path, file: str) -> list[tuple[object, ...]]:
    """Return the commands that read a file of `trained` or `measured`."""
    top, _, name = file.partition("/")
    train = ("train", "--out", root / top, *(part for one in SHORT for part in ("-s", one)))
    if top == "e.jsonl.gz":
        return [("diagnose", root / file), ("diagnose", root / file, root / file)]
    if top == "suite.json":
        return [("verify", root / file)]
    if "/" not in name:
        return [train]
    model = root / top / "step-000002"
    return [train, ("evaluate", model, "-d", "crafting", "--tasks", "2", "--allow-unreadable")]


MEASURED = ("e.jsonl.gz", "suite.json")
TRAINED = (
    *(f"{top}/{name}" for top in ("run", "stopped") for name in ("recipe.json", "metrics.jsonl")),
    "run/done.json",
    *(
        f"{top}/step-000002/{name}"
        for top, names in {
            "run": (
                "config.json",
                "generation_config.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "chat_template.jinja",
                "model.safetensors",
            ),
            "stopped": ("training.json", "training_state.safetensors", "model.safetensors", "config.json"),
        }.items()
        for name in names
    ),
)


@pytest.mark.parametrize("file", [*MEASURED, *(pytest.param(file, marks=pytest.mark.slow) for file in TRAINED)])
def test_a_damaged_file_is_named_in_one_line(request, file, tmp_path):
    made = request.getfixturevalue("measured" if file in MEASURED else "trained")
    named = 0
    for damage in (_cut, _other_type, _gone) if file.startswith("stopped/step") else DAMAGE:  # those train on
        root = tmp_path / damage.__name__
        shutil.copytree(made, root)
        damage(root / file)
        for command in _commands(root, file):
            try:
                done = run(*command)
            except BaseException as fault:
                raise AssertionError(f"{file} {damage.__name__}: {command[0]} ended in {fault!r}") from fault
            said = done.err.strip().splitlines()
            if done.code == 0:
                continue
            named += 1
            text = done.out if command[0] == "verify" else done.err
            assert len(said) <= 1, (damage.__name__, done.err)
            where = (root / file).parent
            assert str(root / file) in text or where.name in text or str(where.parent) in text, (damage.__name__, text)
    if not file.endswith(("training.json", "metrics.jsonl", "generation_config.json", "chat_template.jinja")):
        assert named, f"no damage to {file} was found"

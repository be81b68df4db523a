"""What a command writes goes where it was told to, once, or is kept; and odd paths are refused."""

from __future__ import annotations

import itertools
import json
import os
import re
import stat
import tracemalloc
from pathlib import Path

import pytest

from command import run
from gentax.core.files import check_nested, lock_folder
from gentax.core.settings import parse_yaml

EVALUATE = ("evaluate", "random", "-d", "crafting", "--tasks", "2", "--json")
ROLLOUT = ("rollout", "crafting", "--policy", "random", "--tasks", "2", "--out")


def test_outputs_keep_devices_and_symlinks(tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "result.json")
    for command in (EVALUATE, ROLLOUT):
        assert run(*command, "/dev/null").code == 0
        assert run(*command, link).code == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert link.is_symlink()
    assert (tmp_path / "result.json").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_result_goes_to_the_temporary_folder_when_the_disk_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = run(*EVALUATE, "/dev/full")
    assert done.code == 1
    assert "crafting" in done.out  # the table was printed
    kept = re.search(r"/dev/full could not be written \(No space left .*\); it was written to (\S+) inst", done.err)
    assert kept is not None
    assert json.loads(Path(kept[1]).read_text())


def test_locked_outputs_are_refused(tmp_path):
    for command, doing in {
        ("train", "-s", "source=crafting", "--out"): "training",
        ("merge", "base", "base", "--out"): "merging",
        ("base", "build", "--out"): "building a base model",
        ("evaluate", "random", "--suite", "v2", "-d", "crafting", "--json"): "playing suite v2",
    }.items():
        folder = tmp_path / ("out.partial" if "--json" in command else "out")
        with lock_folder(folder, doing):
            done = run(*command, tmp_path / "out")
        assert done.code == 2
        expected = f"gentax: {doing} is in progress in {folder}, by process {os.getpid()} on "
        assert done.err.startswith(expected), done.err
        assert not list(tmp_path.iterdir())


def test_devices_are_refused_as_recipes_and_folders(tmp_path):
    for recipe in ("/dev/null", tmp_path):
        done = run("train", recipe, "--out", tmp_path / "out")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert str(recipe) in done.err
    for command in (("train", "-s", "source=crafting"), ("merge", "base", "base"), ("base", "build")):
        done = run(*command, "--out", "/dev/null")
        assert done.code == 2
        assert "/dev/null is" in done.err
    assert not list(tmp_path.iterdir())
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


BILLIONS = "a: &a [1]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n" for before, after in itertools.pairwise("abcdefghij")
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: {c: 1, c: 2}\n", "line 2: 'c' is given twice"),
        (BILLIONS, "more than 100000 values"),
        ("a: &a [*a]\n", "nested more than 64 deep"),
        ("[" * 10_000, "nested too deeply"),
    ],
)
def test_yaml_bombs_and_duplicate_keys_are_refused(text, says):
    with pytest.raises(ValueError, match=says):
        parse_yaml(text)
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than 100000 values"):
        check_nested([[0] * 2000] * 2000, most=100_000)  # an alias that is used often
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    assert parse_yaml("x: &x {a: 1}\ny: {<<: *x, b: 1e-4}\n")["y"] == {"a": 1, "b": 1e-4}

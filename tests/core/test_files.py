"""Devices, links and other people's files survive what is written; what killed processes left behind does not."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from gentax.core import UsageError
from gentax.core.files import atomic_file, atomic_folder, lock_folder, write_json


@pytest.mark.parametrize("context", [atomic_file, atomic_folder])
def test_what_was_there_is_kept_on_failure(context, tmp_path):
    target = tmp_path / "it"
    for content in ("", "one", "two"):
        with pytest.raises(RuntimeError), context(target) as aside:
            (aside / "x" if aside.is_dir() else aside).write_text("half")
            raise RuntimeError
        found = target / "x" if target.is_dir() else target
        assert (found.read_text() if found.exists() else "") == content
        with context(target) as aside:
            (aside / "x" if aside.is_dir() else aside).write_text({"": "one"}.get(content, "two"))
    assert [p.name for p in tmp_path.iterdir()] == ["it"]


def test_a_pipe_is_written_to_and_nan_is_refused(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        write_json(pipe, {"a": 1})
        assert json.loads(read.result(timeout=10)) == {"a": 1}
    assert pipe.is_fifo()
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == [pipe]


def test_symlinks_stay_and_their_target_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "there" / "result.json")
    for value in (1, 2):  # the first makes what the link leads to
        write_json(link, value)
        assert link.is_symlink()
        assert json.loads((tmp_path / "there" / "result.json").read_text()) == value
    folder = tmp_path / "folder"
    folder.symlink_to(tmp_path / "there")
    with atomic_folder(folder) as aside:
        (aside / "new").touch()
    assert folder.is_symlink()
    assert [p.name for p in (tmp_path / "there").iterdir()] == ["new"]


def test_writing_to_dev_stdout_appends_to_a_redirected_file(tmp_path):
    code = "from gentax.core.files import write_json; print(1); write_json('/dev/stdout', 2); print(3)"
    with open(tmp_path / "out", "w") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert (tmp_path / "out").read_text() == "1\n2\n3\n"
    assert os.path.islink("/dev/stdout")


def test_atomic_folder_and_lock_refuse_files_and_devices(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "in", "/dev/null"):
        with pytest.raises(UsageError, match="is no folder"), atomic_folder(path):
            pass
        with pytest.raises(UsageError, match="is no folder"), lock_folder(path, "training"):
            pass
    assert (tmp_path / "file").read_text() == "mine"
    assert not os.path.isfile("/dev/null")


def _die_within(context, path):
    with context(path) as aside:
        if aside.is_dir():
            (aside / "half").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("context", [atomic_file, atomic_folder])
def test_leftovers_of_a_killed_process_are_removed(context, tmp_path):
    path = tmp_path / "result"
    process = multiprocessing.get_context("fork").Process(target=_die_within, args=(context, path))
    process.start()
    process.join()
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / ".result.of-a-user").touch()
    with context(path) as outer, context(path) as inner:  # those of living processes stay
        assert outer.exists()
        assert inner.exists()
    assert {p.name for p in tmp_path.iterdir()} == {"result", ".result.of-a-user"}


def test_the_old_folder_is_restored_after_a_kill_between_renames(tmp_path):
    path = tmp_path / "result"
    with atomic_folder(path) as aside:
        (aside / "whole").touch()
        name = aside.name
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = tmp_path / re.sub(r"-\d+\.", f"-{gone.pid}.", name)
    left.mkdir()
    path.rename(left / "old")
    with pytest.raises(RuntimeError), atomic_folder(path):
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["result"]
    assert (path / "whole").exists()


_HOLD = """
import sys, time
from gentax.core.files import lock_folder
with lock_folder(sys.argv[1], "training"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_lock_is_released_when_its_process_dies(tmp_path):
    folder = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", _HOLD, folder], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with (
        pytest.raises(UsageError, match=f"training is in progress in {folder}, by process {holder.pid} on "),
        lock_folder(folder, "training"),
    ):
        pass
    holder.kill()
    holder.wait()
    for _ in range(2):
        with lock_folder(folder, "training"):
            pass
    assert not list(tmp_path.iterdir())

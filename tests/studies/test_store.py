"""The store of a study: stages appear whole, are checked, locked, and never overwritten."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from command import run
from gentax.core import UsageError
from gentax.core.files import lock_folder
from gentax.studies.plan import FORMAT, Stage, make_plan
from gentax.studies.remote import RemoteStore, open_store
from gentax.studies.store import DamagedStage, StageLocked, Store, StoreUnavailable, content_hash, unused_folders
from gentax.studies.study import read_study

STAGE = Stage("evaluate", "toy", {"domain": "toy", "tasks": 2, "samples": 1})


def finished(store: Path | Store, text: str = "content") -> Store:
    """Finish the stage in a store, or in one that is opened in a folder; return the store."""
    store = store if isinstance(store, Store) else Store(store)
    store.open()
    folder = store.fresh_folder(STAGE)
    (folder / "data.txt").write_text(text)
    (folder / "deep").mkdir()
    (folder / "deep" / "more.txt").write_text("more")
    store.finish(STAGE, folder, 1.0, None)
    return store


def sealed(content: dict) -> str:
    """Return the text of a seal that says this, and whose own hash is right."""
    return json.dumps({**content, "sha256": content_hash(content)})


def test_a_stage_appears_whole(tmp_path):
    store = Store(tmp_path)
    folder = store.fresh_folder(STAGE)
    (folder / "data.txt").write_text("half")
    assert not store.has(STAGE)
    assert not store.has(STAGE)
    store = finished(tmp_path)
    assert store.has(STAGE)
    assert set(store.seal(STAGE)["files"]) == {"data.txt", "deep/more.txt"}


def test_the_first_of_two_that_finish_a_stage_is_kept(tmp_path):
    store = finished(tmp_path, "first")
    finished(tmp_path, "second")
    assert (store.path(STAGE) / "data.txt").read_text() == "first"
    assert [path.name for path in (tmp_path / "stages").glob(".*")] == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "data.txt").write_text("contenu"),
        lambda folder: (folder / "data.txt").write_text(""),
        lambda folder: (folder / "deep" / "more.txt").unlink(),
        lambda folder: (folder / "stage.json").write_text("{}"),
        lambda folder: (folder / "stage.json").write_bytes(b"\xff\x00"),
        lambda folder: (folder / "stage.json").write_text("[" * 100_000),
        lambda folder: (folder / "stage.json").write_text("[1]"),
        lambda folder: (folder / "stage.json").write_text(sealed({})),
        lambda folder: (folder / "stage.json").write_text(sealed({"files": None})),
        lambda folder: (folder / "stage.json").write_text(sealed({"files": {"data.txt": {}}})),
        lambda folder: (folder / "stage.json").write_text((folder / "stage.json").read_text().replace("1.0", "2.0")),
    ],
)
def test_a_file_that_does_not_match_its_checksum_is_set_aside(tmp_path, damage):
    store = finished(tmp_path)
    folder = store.path(STAGE)
    damage(folder)
    fresh = Store(tmp_path)
    assert not fresh.has(STAGE)
    assert not folder.exists()
    assert (tmp_path / "stages" / f"damaged-{folder.name}").is_dir()
    (text,) = fresh.take_damaged()
    assert str(folder) in text
    finished(tmp_path)
    assert fresh.has(STAGE)


def test_damage_that_keeps_size_and_time_is_found_when_the_file_is_read(tmp_path):
    store = finished(tmp_path)
    file = store.path(STAGE) / "data.txt"
    before = file.stat()
    file.write_text("c0ntent")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    fresh = Store(tmp_path)
    assert fresh.has(STAGE)
    with pytest.raises(DamagedStage, match=r"data\.txt is not what was stored"):
        fresh.check(STAGE, "data")
    assert not fresh.has(STAGE)


def test_a_copied_store_is_intact(tmp_path):
    import shutil

    finished(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)  # other times
    assert Store(tmp_path / "b").has(STAGE)


def test_a_store_of_a_newer_version_is_refused(tmp_path):
    marker = tmp_path / "stages" / "store.json"
    marker.parent.mkdir()
    marker.write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(UsageError, match="newer version of gentax"):
        Store(tmp_path).open()
    with pytest.raises(UsageError, match="newer version of gentax"):
        open_store(tmp_path)  # nor is it read or cleaned


def test_a_store_of_a_newer_version_behind_a_url_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a"))
    store = open_store("memory://gentax-newer")
    try:
        store.open()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
        assert open_store("memory://gentax-newer").format() == FORMAT
        store.files.pipe_file("/gentax-newer/stages/store.json", json.dumps({"format": FORMAT + 1}).encode())
        with pytest.raises(UsageError, match="memory://gentax-newer was written by a newer version"):
            open_store("memory://gentax-newer")
    finally:
        store.files.rm("/gentax-newer", recursive=True)


def test_a_store_that_does_not_answer_is_not_taken_for_a_new_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = open_store("memory://gentax-silent")
    newer = json.dumps({"format": FORMAT + 1}).encode()
    store.files.pipe_file("/gentax-silent/stages/store.json", newer)

    def refuse(path):
        raise TimeoutError("no answer")

    try:
        with monkeypatch.context() as patch:
            patch.setattr(store.files, "cat_file", refuse)
            with pytest.raises(StoreUnavailable, match="no answer"):
                store.open()
        assert store.files.cat_file("/gentax-silent/stages/store.json") == newer
    finally:
        store.files.rm("/gentax-silent", recursive=True)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write to"):
        Store(tmp_path / "file").open()
    with pytest.raises(UsageError, match="file is no folder"):
        open_store(tmp_path / "file")  # nor is it an empty store to those who only read


def hold(root: Path, ready) -> None:
    with Store(root).lock(STAGE):
        ready.set()
        time.sleep(60)


def test_a_lock_keeps_others_out_and_ends_with_its_process(tmp_path):
    context = multiprocessing.get_context("fork")  # which has not to import everything again
    ready, store = context.Event(), Store(tmp_path)
    process = context.Process(target=hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    assert store.locked(STAGE)
    with pytest.raises(StageLocked), store.lock(STAGE):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with store.lock(STAGE):
        pass
    assert not store.locked(STAGE)


def look(root: Path, ready) -> None:
    store = Store(root)
    with store.lock(STAGE):
        pass
    ready.set()
    while True:
        store.locked(STAGE)


def test_looking_at_a_lock_keeps_nobody_out(tmp_path):
    context = multiprocessing.get_context("fork")  # which has not to import everything again
    ready, store = context.Event(), Store(tmp_path)
    process = context.Process(target=look, args=(tmp_path, ready), daemon=True)
    process.start()
    assert ready.wait(60)
    try:
        for _ in range(100):
            assert not store.locked(STAGE)
            with store.lock(STAGE):
                pass
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("text", ["", "[]", '{"detail": "x"}', '{"fraction": "x", "detail": ""}', "[" * 100_000])
def test_progress_that_cannot_be_read_is_none(tmp_path, text):
    store = Store(tmp_path)
    store.write_progress(STAGE, 2.0, "half")
    assert (store.progress(STAGE)["fraction"], store.progress(STAGE)["detail"]) == (1.0, "half")
    store.running(STAGE, "json").write_text(text)
    assert store.progress(STAGE) == {}


def test_what_was_said_of_a_stage_in_progress_goes_with_its_end(tmp_path):
    store = Store(tmp_path)
    with store.lock(STAGE):
        store.write_progress(STAGE, 0.5, "half")
        store.running(STAGE, "log").write_text("the traceback of an earlier attempt")
        finished(tmp_path)
    assert list((tmp_path / "running").iterdir()) == []


def leave_behind(store: Store) -> list[Path]:
    """Make the files that a killed process leaves of a stage; return them."""
    store.write_progress(STAGE, 0.5, "half")
    left = [store.running(STAGE, suffix) for suffix in ("json", "lock", "123.tmp")]
    left.append(store.root / "stages" / f"..{STAGE.folder}.lock")
    for file in left[1:]:
        file.write_text("")
    return left


def test_what_a_killed_process_left_is_removed_and_no_lock_that_is_held(tmp_path):
    store = finished(tmp_path)  # killed after the stage was done
    left = leave_behind(store)
    with Store(tmp_path).lock(STAGE):
        assert store.sweep() == []
        assert all(file.exists() for file in left)
    assert not any(file.exists() for file in left)  # who takes the stage removes them
    left = leave_behind(store)
    with lock_folder(store.working_folder(STAGE), "training"):
        assert set(store.sweep()) == set(left[:-1])
        assert left[-1].exists()
    leave_behind(store)
    log = store.running(Stage("train", "toy", {}), "log")
    log.write_text("the traceback of a stage that is not done")
    assert set(store.sweep()) == set(left)
    assert list((tmp_path / "running").iterdir()) == [log]
    leave_behind(store)
    cleaned = run("study", "clean", "demo", "--out", tmp_path, "--delete")
    assert cleaned.out.count("deleted ") == 1 + len(left)  # the stage, which no arm of the demo uses, as well
    assert list((tmp_path / "running").iterdir()) == [log]


def test_a_seal_is_read_again_only_when_it_has_changed(tmp_path, monkeypatch):
    store = finished(tmp_path)
    assert len(list(store.history())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", lambda *args, **more: pytest.fail("read again"))
        assert len(list(store.history())) == 1
    file, before = store.path(STAGE) / "stage.json", (store.path(STAGE) / "stage.json").stat()
    file.write_text("{}")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert list(store.history()) == []


def test_a_stage_that_goes_while_the_history_is_read_is_left_out(tmp_path):
    store = finished(tmp_path)
    (tmp_path / "stages" / "gone-away").symlink_to(tmp_path / "nowhere")
    assert [stage.folder for stage, _ in store.history()] == [STAGE.folder]


@pytest.fixture(params=["memory", "s3"])
def machine(request, tmp_path, monkeypatch):
    """Open a store behind a URL as one of several machines, each of which has a cache of its own."""

    def open_as(name: str) -> RemoteStore:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return open_store(f"{request.param}://gentax-test/runs")

    if request.param == "memory":
        yield open_as
        open_as("a").files.rm("gentax-test", recursive=True)
        return
    moto, s3fs = pytest.importorskip("moto.server"), pytest.importorskip("s3fs")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    yield open_as
    open_as("a").files.rm("gentax-test", recursive=True)
    server.stop()


def test_a_store_behind_a_url_is_shared_by_machines(machine):
    """What one finishes the other reads, checked."""
    first, second = machine("a"), machine("b")
    assert not second.has(STAGE)
    finished(first)
    assert STAGE.folder in second.present()
    assert second.has(STAGE)
    assert not (second.path(STAGE) / "data.txt").exists()  # downloaded when it is read
    assert (second.check(STAGE, "data") / "data.txt").read_text() == "content"
    (remote,) = first.files.glob(f"{first.remote_root}/stages/*/*/data.txt")
    first.files.pipe_file(remote, b"other")
    third = machine("c")
    assert not third.has(STAGE, contents=True)
    assert "data.txt is not what was stored" in third.take_damaged()[0]
    assert first.files.exists(f"{first.remote_root}/stages/{STAGE.folder}/damaged-stage.json")
    assert not machine("d").has(STAGE)


@pytest.mark.parametrize("name", ["../../../x", "/{root}/x", "deep/../../x", "..\\x", ".", "x\0", "\ud800"])
def test_a_seal_names_no_file_outside_its_folder(tmp_path, monkeypatch, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = open_store("memory://gentax-outside")
    name = name.format(root=tmp_path)
    content = {"files": {name: {"sha256": "0", "bytes": 7, "mtime_ns": 0}}}
    stage = f"/gentax-outside/stages/{STAGE.folder}"
    try:
        store.files.pipe_file(f"{stage}/stage.json", sealed(content).encode())
        store.files.pipe_file(f"{stage}/{content_hash(content)[:12]}/{name}", b"planted")
        assert not store.has(STAGE, contents=True)
        assert "are no files of a stage" in store.take_damaged()[0]
        assert [file for file in tmp_path.rglob("*") if file.is_file() and file.name != "stage.json"] == []
        assert not store.files.exists(f"{stage}/stage.json")
    finally:
        store.files.rm("/gentax-outside", recursive=True)


def test_of_two_machines_that_do_a_stage_one_is_kept_whole_and_others_learn_what_it_took(machine):
    first = finished(machine("a"), "first")
    second = finished(machine("b"), "second")
    files, stages = first.files, f"{first.remote_root}/stages"
    assert len(files.glob(f"{stages}/*/*/data.txt")) == 1  # the second saw the seal of the first
    assert not any(second.path(STAGE).parent.glob(f"*{STAGE.folder}*"))  # and does not go on with its own
    assert (second.check(STAGE, "data") / "data.txt").read_text() == "first"
    files.pipe_file(f"{stages}/{STAGE.folder}/0123456789ab/data.txt", b"half")

    third = machine("c")
    ((stage, seal),) = third.history()
    assert (stage.kind, stage.label, seal["seconds"]) == ("evaluate", "toy", 1.0)
    assert third.has(STAGE, contents=True)
    assert (third.path(STAGE) / "data.txt").read_text() == "first"


def test_damage_on_one_machine_costs_nothing_of_what_another_did(machine):
    finished(machine("a"), "first")
    second = machine("b")
    finished(Store(second.root), "second")  # when the store did not answer
    (second.path(STAGE) / "data.txt").write_text("other")
    assert not second.has(STAGE, contents=True)
    assert "data.txt is not what was stored" in second.take_damaged()[0]
    assert second.has(STAGE, contents=True)
    assert (second.path(STAGE) / "data.txt").read_text() == "first"


def test_a_stage_is_uploaded_later_where_the_store_did_not_answer(machine, monkeypatch):
    first = machine("a")

    def refuse(*args, **options):
        raise RuntimeError("Could not connect\nto the endpoint")  # what libraries raise is often no OSError

    with monkeypatch.context() as patch:
        patch.setattr(first.files, "put_file", refuse)
        with pytest.raises(StoreUnavailable, match="//gentax-test/runs cannot be used now: Could not connect to the"):
            finished(first)
    assert not first.has(STAGE)
    with machine("a").lock(STAGE):
        assert machine("b").has(STAGE)  # nothing was done again


def test_two_machines_may_open_a_new_store_at_once(machine, monkeypatch):
    first, second = machine("a"), machine("b")
    read = RemoteStore._read_marker

    def read_late(self):
        if self is first:
            second.open()
        return read(self)

    assert (first.format(), second.format()) == (0, 0)
    with monkeypatch.context() as patch:
        patch.setattr(RemoteStore, "_read_marker", read_late)
        first.open()
    assert (first.format(), second.format()) == (FORMAT, FORMAT)


def test_a_url_that_cannot_be_opened_is_refused():
    with pytest.raises(UsageError, match="cannot open nosuch://x/y"):
        open_store("nosuch://x/y")


def test_what_no_study_uses_is_named_and_nothing_else(tmp_path):
    plan, store = make_plan(read_study("demo")), finished(tmp_path)
    used = plan.init["sokoban"]
    (tmp_path / "stages" / used.folder).mkdir()
    (tmp_path / "stages" / f".{used.folder}").mkdir()  # stopped, to go on
    stopped = tmp_path / "stages" / ".train-sokoban-seed0-0123456789ab"
    stopped.mkdir()
    reports = [tmp_path / "demo" / name for name in ("report-demo-0123456789ab", ".report-demo-0123456789ab")]
    others = [tmp_path / "demo" / "mine", tmp_path / "other" / "report-other-0123456789ab", store.path(plan.report)]
    for folder in (*reports, *others):
        folder.mkdir(parents=True)
    assert set(unused_folders([plan], store)) == {store.path(STAGE), stopped, *reports}
    with store.lock(STAGE):
        assert store.path(STAGE) not in unused_folders([plan], store)


def test_damage_in_a_store_that_may_only_be_read_is_said_once(tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError(13, "Permission denied")

    store = finished(tmp_path)
    (store.path(STAGE) / "data.txt").write_text("other")
    monkeypatch.setattr(Path, "rename", refuse)
    assert not store.has(STAGE)
    assert not store.has(STAGE)
    (damage,) = store.take_damaged()
    assert "it cannot be set aside: Permission denied" in damage

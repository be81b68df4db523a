"""A tax as a folder: everything is in it, it appears whole, and what is not ours is left alone."""

from __future__ import annotations

import json

import made_up
import pytest

from gentax.core import UsageError
from gentax.core.record import read_episodes
from gentax.report.folder import check_folder, write_folder

BEFORE = [pair.before for pair in made_up.report().pairs]


def write(out):
    write_folder(out, made_up.arms(), {"base": BEFORE, "tuned": BEFORE}, {"tax": 0.5})


def test_everything_is_in_it(tmp_path):
    out = tmp_path / "new" / "result"
    write(out)
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert found == [
        "base/episodes.jsonl.gz",
        "matrix.png",
        "matrix.svg",
        "report.html",
        "result.json",
        *(f"tables/{name}.csv" for name in ("arms", "domains", "matrix", "taxes")),
        "tuned/episodes.jsonl.gz",
    ]
    assert [episode.task for episode in read_episodes(out / "base")] == [episode.task for episode in BEFORE]
    assert json.loads((out / "result.json").read_text()) == {"tax": 0.5}
    assert (out / "matrix.png").read_bytes().startswith(b"\x89PNG")
    write(out)  # an earlier result is replaced
    assert len(list(out.parent.iterdir())) == 1  # nothing is left of the making


def test_a_folder_with_anything_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"holds 'thesis.tex', which is no part of a result"):
        check_folder(tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        check_folder(tmp_path / "thesis.tex")
    with pytest.raises(UsageError):
        write(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "mine"
    (tmp_path / "thesis.tex").unlink()
    check_folder(tmp_path)  # empty
    check_folder(tmp_path / "none")
    check_folder(None)


def test_what_fails_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_folder(tmp_path / "out", made_up.arms(), {}, {"tax": float("nan")})
    assert list(tmp_path.iterdir()) == []

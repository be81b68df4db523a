"""`gentax tax --out FOLDER`"""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from gentax.cli.app import app
from gentax.core import UsageError
from gentax.core.episode import read_episodes

PLAYED = ["tax", "--base", "expert", "--tuned", "random", "--source", "sokoban", "-t", "crafting", "--tasks", "8"]


def test_a_tax_is_written_to_a_folder_whole(tmp_path):
    out = tmp_path / "tax"
    done = CliRunner().invoke(app, [*PLAYED, "--looks", "1", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert f"wrote {out / 'report.html'}" in done.output
    assert {path.name for path in out.iterdir()} == {
        "report.html", "result.json", "matrix.svg", "matrix.png", "tables", "base", "tuned",
    }  # fmt: skip
    assert len(read_episodes(out / "base")) == len(read_episodes(out / "tuned")) == 16
    assert json.loads((out / "result.json").read_text())["source"] == "sokoban"
    page = (out / "report.html").read_text()
    assert "What training on sokoban cost" in page
    assert 'data-outcome="lost"' in page


@pytest.mark.parametrize(
    ("more", "says"), [([], "no part of a result"), (["--forecast-only"], "--out is for a tax that is played")]
)
def test_a_foreign_folder_is_refused_before_anything_is_played(tmp_path, more, says):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=says):
        CliRunner().invoke(app, [*PLAYED, *more, "--out", str(tmp_path)], catch_exceptions=False)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

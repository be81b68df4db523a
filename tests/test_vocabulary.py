"""The glossary: words that the field has other names for do not return. CONTRIBUTING.md lists the terms in use."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = ["src", "examples", "benchmarks"]

# A whole identifier, wherever it stands in code, and what to write instead.
NAMES = {
    "Acted": "StepResult",
    "Alike": "a name that says what is alike",
    "Ask": "SamplingRequest",
    "BaseRecipe": "PretrainConfig",
    "Course": "Curriculum",
    "Foreign": "ExternalEnv",
    "Ground": "TaskPool",
    "Held": "a name that says what is held",
    "Imitate": "SFTConfig",
    "Last": "a name that says what is last",
    "Lesson": "TrainSample",
    "Looks": "InterimAnalyses",
    "Meter": "KLMonitor",
    "Move": "ExpertAction",
    "Play": "RolloutConfig",
    "Playing": "RolloutWorker",
    "Retain": "ForgettingConfig",
    "Seen": "a name that says what was seen",
    "Whole": "a name that says what is whole",
    "act": "step",
    "as_printed": "a name that says the format",
    "begins": "starts",
    "draws": "samples",
    "way_of": "a name that says which way",
}
# Modules, by the name of the file.
FILES = {
    "draw": "sampling",
    "fits": "supported",
    "foreign": "external",
    "last": "last_layer",
    "many": "multiple_testing",
    "moved": "kl_forecast",
    "passes": "pass_at_k or prefill",
    "played": "paired_eval",
    "recipe": "config",
    "retain": "forgetting",
    "retention": "forgetting",
    "seen": "training_runs",
}
# Phrases of prose, in code and documentation.
PROSE = {
    r"\bdraws? from the policy\b": "sample",
}


def files(*suffixes: str) -> Iterator[Path]:
    """Everything that people read: the package, its examples and benchmarks, and the documentation."""
    for folder in [*CODE, "docs", "studies"]:
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in suffixes and "egg-info" not in str(file):
                yield file
    for file in ROOT.glob("*"):
        if file.suffix in suffixes:
            yield file


def identifiers(text: str) -> Iterator[tuple[int, str]]:
    """Return every identifier of a Python file with its line; strings do not count."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


def test_retired_names_are_not_identifiers():
    found = [
        f"{file.relative_to(ROOT)}:{line}: {name} (write {NAMES[name]})"
        for file in files(".py")
        for line, name in identifiers(file.read_text(encoding="utf-8"))
        if name in NAMES
    ]
    assert not found, "\n".join(found)


def test_retired_names_are_not_modules():
    found = [f"{file.relative_to(ROOT)} (write {FILES[file.stem]})" for file in files(".py") if file.stem in FILES]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("phrase", PROSE)
def test_retired_phrases_are_not_written(phrase):
    found = [
        f"{file.relative_to(ROOT)}: {match[0]!r} (write {PROSE[phrase]})"
        for file in files(".py", ".md", ".yaml")
        for match in re.finditer(phrase, file.read_text(encoding="utf-8"), re.IGNORECASE)
    ]
    assert not found, "\n".join(found)


def test_a_retired_name_would_be_found():
    assert [name for _, name in identifiers("def f(x):\n    return x.act(Play='Course')\n") if name in NAMES] == [
        "act", "Play",
    ]  # fmt: skip

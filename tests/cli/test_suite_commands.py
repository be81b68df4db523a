"""`gentax evaluate --suite` and `gentax verify`: refusals, the score card, and damaged files."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from command import Done, run
from gentax.domains import registry
from gentax.evals.suite_run import play_suite

STARTS = ("domains", "crafting", "starts")
FIRST = ("domains", "crafting", "episodes", 0)


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> dict[str, Any]:
    """A result as it is written."""
    out = tmp_path_factory.mktemp("result") / "r.json"
    play_suite("random", domains=["crafting"], out=out)
    return json.loads(out.read_text())


def verify(*files: Path) -> Done:
    return run("verify", *files)


def edited(content: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return a copy with another value at `path`."""
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


def test_verify_accepts_valid_results(valid, tmp_path):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    files[0].write_text(json.dumps(valid))
    files[1].write_text(json.dumps(edited(valid, ("made_with", "numpy"), "0.1")))
    done = verify(*files)
    assert done.code == 0, done.err
    assert "FAILED" not in done.out
    assert done.out.count(" ok ") == 18
    assert "others than here: numpy 0.1 (here " in done.out  # a note, no failure
    assert "2 of 2 files passed every check" in done.out


@pytest.mark.parametrize(
    ("path", "value", "check", "says"),
    [
        (("format",), 2, "format", "has the format 2"),
        (("format",), True, "format", "has the format True"),
        (("colour",), "red", "format", "unknown key"),
        (("suite",), "v9", "suite", "'v9' is not known here"),
        (("digest",), "0" * 32, "suite", "v2 was frozen as"),
        (("missing",), [], "domains", "the file says none"),
        (("domains",), {}, "domains", "no domain was played"),
        (("domains", "crafting", "level"), "depth1-read0", "domains", "at level shallow for 8 steps"),
        (("domains", "crafting", "horizon"), 13, "domains", "at level shallow for 8 steps"),
        (("domains", "chess"), {"level": "a", "horizon": 1, "starts": {}, "episodes": []}, "domains", "'chess' is not"),
        ((*STARTS, "crafting/shallow/test/7"), "0" * 16, "starts", "task crafting/shallow/test/7 started as"),
        ((*STARTS, "crafting/shallow/test/128"), "0" * 16, "starts", "not of its 128 tasks"),
        ((*FIRST, "sample"), 1, "tasks", "1 of sample 1 of task 'crafting/shallow/test/0' more"),
        ((*FIRST, "task"), "crafting/shallow/test/1", "tasks", "more than the suite"),
        ((*FIRST, "outcome"), "victory", "numbers", "not 'victory'"),
        ((*FIRST, "length"), 13, "numbers", "1 to 8 steps, not 13"),
        ((*FIRST, "length"), 0, "numbers", "1 to 8 steps, not 0"),
        ((*FIRST, "invalid"), 99, "numbers", "cannot be invalid"),
        ((*FIRST, "ret"), 0.5, "numbers", "the return of a"),
        ((*FIRST, "written"), -1, "numbers", "-1 tokens"),
        ((*FIRST, "length"), 1.5, "format", "length must be a valid integer"),
        (("score", "success", "crafting", "value"), 99.0, "score card", "score.success.crafting.value is not"),
        (("score", "success", "crafting", "low"), None, "score card", "score.success.crafting.low is not"),
        (("score", "mean"), {"value": 50.0}, "score card", "score.mean is not"),
        (("score",), None, "score card", "score is not"),
        (("made_with",), {"gentax": "1", "python": "3"}, "versions", "with which platform it was made"),
    ],
)
def test_verify_names_what_is_wrong(valid, tmp_path, path, value, check, says):
    file = tmp_path / "r.json"
    file.write_text(json.dumps(edited(valid, path, value)))
    done = verify(file)
    assert done.code == 1
    (line,) = [line for line in done.out.splitlines() if "FAILED" in line]
    assert line.split("FAILED")[0].strip() == check
    assert says in line


def test_verify_accepts_intervals_of_another_version_but_no_other_values(valid, tmp_path):
    file, low = tmp_path / "r.json", ("score", "success", "crafting", "low")
    other = edited(edited(valid, low, 1.0), ("made_with", "gentax"), "0.0.1")
    file.write_text(json.dumps(other))
    done = verify(file)
    assert done.code == 0, done.err
    assert "intervals are of another version" in done.out
    file.write_text(json.dumps(edited(other, (*low[:-1], "value"), 99.0)))
    assert "score.success.crafting.value is not" in verify(file).out


def test_verify_finds_a_changed_outcome(valid, tmp_path):
    won = valid["domains"]["crafting"]["episodes"][0]["outcome"] == "success"
    changed = edited(
        edited(valid, (*FIRST, "outcome"), "failure" if won else "success"), (*FIRST, "ret"), float(not won)
    )
    (tmp_path / "r.json").write_text(json.dumps(changed))
    done = verify(tmp_path / "r.json")
    assert done.code == 1
    assert "is not what the outcomes give" in done.out


def test_verify_finds_missing_tasks_and_too_many_errors(valid, tmp_path):
    file = tmp_path / "r.json"
    file.write_text(json.dumps(edited(valid, FIRST[:3], valid["domains"]["crafting"]["episodes"][:-1])))
    assert "lacks sample 0 of task crafting/shallow/test/127" in verify(file).out
    for count, code in ((2, 1), (3, 1)):  # 2 of 128 may be, but the score card must know of them
        changed = valid
        for n in range(count):
            changed = edited(edited(changed, (*FIRST[:3], n, "outcome"), "error"), (*FIRST[:3], n, "ret"), 0.0)
        file.write_text(json.dumps(changed))
        done = verify(file)
        assert done.code == code
        assert ("3 of 128 tasks of crafting ended in an error" in done.out) == (count == 3)
        assert ("score card  FAILED" in done.out) == (count == 2)


HOSTILE = [
    b"",
    b"\xff\xfe\x00",
    b"null",
    b"[1, 2]",
    b"[" * 200_000,
    b'{"format": 1, "suite": ' + b"9" * 5000 + b"}",
    b'{"format": 1, "suite": NaN}',
    b'{"format": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b', "suite": 1}',
    b'{"format": 1, "suite": "\\u001b[2J\\ud800\\u202e"}',
    b'{"format": 1, "suite": "v2", "\\u001b[2J\\n[bold]": 1}',
    b'{"format": "\\u001b[2J", "suite": "v2"}',
    b'{"format": 1, "suite": "v2", "made_with": [1], "missing": {}, "domains": 7}',
]


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_verify_refuses_hostile_files_in_one_line(tmp_path, content):
    file = tmp_path / "r.json"
    file.write_bytes(content)
    done = verify(file)
    assert done.code == 1
    lines = done.out.splitlines()
    assert len(lines) == 2
    assert lines[1].split()[:2] == ["format", "FAILED"]
    assert len(lines[1]) < 400
    assert done.out.replace("\n", "").isprintable()


@pytest.mark.parametrize("value", ["\x1b[2J\ud800\u202e[bold]", 10**400, 1e300, -1, True, None, {}, [[]], "x" * 10**5])
def test_verify_refuses_hostile_values_in_one_line(valid, tmp_path, value):
    places = [(key,) for key in valid] + [
        *((*FIRST, key) for key in valid["domains"]["crafting"]["episodes"][0]),
        *(("domains", "crafting", key) for key in valid["domains"]["crafting"]),
        ("made_with", "numpy"),
        ("score", "success"),
        ("score", "success", "crafting", "value"),
        (*STARTS, "crafting/shallow/test/0"),
    ]
    free = {
        ("policy",),
        ("fingerprint",),
        ("runtime",),
        ("made_with", "numpy"),
        (*FIRST, "written"),
    }  # some of these may be there
    file = tmp_path / "r.json"
    for place in places:
        file.write_text(json.dumps(edited(valid, place, value)))
        done = verify(file)
        assert done.code == 1 or place in free, place
        assert done.out.replace("\n", "").isprintable(), place
        assert max(map(len, done.out.splitlines())) < 400


def test_verify_refuses_folders_and_missing_files(tmp_path):
    done = verify(tmp_path, tmp_path / "nowhere.json")
    assert done.code == 1
    assert done.out.count("is no file") == 2
    assert "0 of 2 files passed" in done.out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--tasks", "128"], "--tasks cannot be given with --suite"),
        (["--samples", "2"], "--samples cannot"),
        (["--temperature", "0.4", "--seed", "0"], "--temperature, --seed cannot"),
        (["--context", "full"], "--context cannot"),
        (["--thinking"], "--thinking cannot"),
        (["--admissible"], "--admissible cannot"),
        (["--wrap", "menu"], "--wrap cannot"),
        (["--split", "test"], "--split cannot"),
        (["-d", "sokoban:6x6"], "fixes the level; say -d sokoban"),
        (["-d", "sokobn"], "did you mean 'sokoban'"),
        (["expert"], "the policy is given twice: 'expert' and --policy 'random'"),
    ],
)
def test_options_that_a_suite_fixes_are_refused(args, says):
    done = run("evaluate", "--suite", "v2", "--policy", "random", *args)
    assert done.code == 2
    assert says in done.err
    assert "episodes" not in done.out


def test_an_unknown_suite_is_refused():
    done = run("evaluate", "--suite", "v0")
    assert "did you mean 'v2'" in done.err


def test_an_incomplete_suite_names_the_missing_domains_and_how_to_install_them(tmp_path, monkeypatch):
    gone = {name: dataclasses.replace(r, requires=("no_such_module",)) for name, r in registry.domains().items()}
    known = {**gone, "crafting": registry.domain("crafting")}
    monkeypatch.setattr(registry, "domains", lambda: known)
    out = tmp_path / "r.json"
    done = run("evaluate", "--suite", "v2", "--policy", "expert", "--json", str(out))
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "expert on suite v2" in text
    assert "crafting shallow 100.0 (97.1 to 100.0)" in text
    assert "incomplete, so there is no mean: without sokoban, sciworld, webshop" in text
    assert 'to enable alfworld: pip install "gentax[alfworld]"' in text
    assert json.loads(out.read_text())["score"]["mean"] is None
    assert done.out.count("to enable") == 7
    assert f"gentax verify {out}" in text

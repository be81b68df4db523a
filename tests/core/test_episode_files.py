"""A file that holds no episodes is refused in one line that says which file, which line and what is wrong."""

from __future__ import annotations

import dataclasses
import gzip
import json
import subprocess
import sys

import pytest

from gentax.core import Episode, Outcome, Step, Task, UsageError
from gentax.core.episode import episode_from_json, episode_to_json, read_episodes, write_episodes

ONE = Episode(Task("d", "l", "s", 3), 1, "g", (Step("o", "t", "a", 1, True, written=2),), Outcome.SUCCESS, "end")


def write_lines(path, *values, text=None):
    lines = "".join(json.dumps(value) + "\n" for value in values) if text is None else text
    path.write_bytes(gzip.compress(lines.encode()))
    return path


def test_stage_folders_and_concatenated_files_are_read(tmp_path):
    write_episodes(tmp_path / "episodes.jsonl.gz", [ONE])
    assert read_episodes(tmp_path) == [ONE]
    odd = Step("\x00 \u202e <b>", "<action>é</action>", "é", 0.25, False, thought="t", admissible=("a", "b"))
    two = [dataclasses.replace(ONE, steps=(odd,), outcome=Outcome.ERROR, error="it broke")] * 2
    for name in ("a.gz", "b.gz"):
        write_episodes(tmp_path / name, two)
    assert read_episodes(tmp_path / "a.gz") == two
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    (tmp_path / "two.gz").write_bytes((tmp_path / "episodes.jsonl.gz").read_bytes() * 2)
    assert read_episodes(tmp_path / "two.gz") == [ONE, ONE]
    write_episodes(tmp_path / "none.gz", [])
    assert read_episodes(tmp_path / "none.gz") == []


def test_damaged_episode_files_are_refused(tmp_path):
    write_episodes(tmp_path / "good.gz", [ONE] * 50)
    packed = (tmp_path / "good.gz").read_bytes()
    (tmp_path / "cut.gz").write_bytes(packed[:-20])
    (tmp_path / "start.gz").write_bytes(packed[:1])
    (tmp_path / "bad.gz").write_bytes(packed[:40] + b"\0\0\0\0" + packed[44:])
    (tmp_path / "plain.gz").write_text(json.dumps(episode_to_json(ONE)))
    (tmp_path / "bytes.gz").write_bytes(gzip.compress(b"\xff\xfe"))
    write_lines(tmp_path / "text.gz", text="hello\n")
    write_lines(tmp_path / "half.gz", text=json.dumps(episode_to_json(ONE)) + '\n{"task": "d/l')
    says = {
        "nowhere.gz": "no file of episodes",
        "cut.gz": "cut short",
        "start.gz": "not gzipped",
        "bad.gz": "is damaged",
        "plain.gz": "not gzipped",
        "bytes.gz": "is damaged",
        "text.gz": "line 1, is not JSON",
        "half.gz": "line 2, is not JSON",
        ".": "holds no episodes.jsonl.gz",
    }
    for name, words in says.items():
        with pytest.raises(UsageError, match=words) as caught:
            read_episodes(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("goal", None, "lacks the key 'goal'"),
        ("task", None, "lacks the key 'task'"),
        ("outcome", "sucess", "did you mean 'success'"),
        ("task", "d/l", "domain/level/split/index"),
        ("task", "d/l/s/x", "domain/level/split/index"),
        ("sample", True, "sample must be a valid integer"),
        ("goal", 3, "goal must be a valid string"),
        ("steps", {}, "steps must be a valid array"),
        ("steps", [3], "steps.0 must be a"),
        ("steps", [{"observation": "o"}], "lacks the key 'text'"),
        ("steps", [{**episode_to_json(ONE)["steps"][0], "valid": 1}], "valid must be a valid boolean"),
        ("steps", [{**episode_to_json(ONE)["steps"][0], "written": 1.5}], "written must be a valid integer"),
        ("steps", [{**episode_to_json(ONE)["steps"][0], "admissible": [1]}], "admissible.0 must be a valid string"),
    ],
)
def test_invalid_episode_lines_name_the_key(key, value, says, tmp_path):
    row = episode_to_json(ONE) | {key: value}
    if value is None:
        del row[key]
    path = write_lines(tmp_path / "e.gz", episode_to_json(ONE), row)
    with pytest.raises(UsageError, match=says) as caught:
        read_episodes(path)
    assert f"{path}, line 2, is no episode" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"reward": NaN}', "it holds NaN, which JSON does not have"),
        ('{"reward": -Infinity}', "it holds -Infinity"),
        ('{"reward": 1e999}', "it holds 1e999, which is too large"),
        ('{"task": "a/b/c/0", "task": "d/l/s/0"}', "the key 'task' is given twice"),
        ('{"task": ' + "[" * 100 + "]" * 100 + "}", "nested more than 64 deep"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_invalid_json_lines_name_file_and_line(text, says, tmp_path):
    path = write_lines(tmp_path / "e.gz", text=json.dumps(episode_to_json(ONE)) + "\n" + text)
    with pytest.raises(UsageError, match=says) as caught:
        read_episodes(path)
    assert f"{path}, line 2, is not JSON" in str(caught.value)


def test_lone_surrogates_become_question_marks(tmp_path):
    written = dataclasses.replace(ONE, goal="half \ud83d of \U0001f600")
    write_episodes(tmp_path / "e.gz", [written])
    assert read_episodes(tmp_path / "e.gz")[0].goal == "half ? of \U0001f600"


_UNPACK = """
import sys
from gentax.core.episode import read_episodes
for name in sys.argv[1:]:
    try:
        read_episodes(name)
    except ValueError as fault:
        print(fault)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_gzip_bombs_are_refused_in_little_memory(tmp_path):
    for name, part in {"line": b" " * (1 << 20), "lines": b"\n" * (1 << 20)}.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(part, 1) * 512)
    names = [str(tmp_path / name) for name in ("line.gz", "lines.gz")]
    done = subprocess.run([sys.executable, "-c", _UNPACK, *names], capture_output=True, text=True, check=True)
    long, many, used = done.stdout.splitlines()
    assert long == f"{names[0]}, line 1, is longer than 16 MB, which is all that is read"
    assert many == f"{names[1]} holds more than 1024 MB or 1000000 lines; split it"
    assert int(used) < 250_000  # kB


def test_episodes_without_token_counts_are_read():
    row = episode_to_json(ONE)
    del row["steps"][0]["written"]
    assert episode_from_json(row).written is None


def test_truncation_fields_round_trip_and_are_optional():
    lost = Step("o", "t", "", 0.0, False, truncated=True, prompt_cut=True, dropped=2)
    episode = Episode(Task("toy", "one", "test", 0), 0, "g", (lost, Step("o", "t", "a", 0.0, False)), Outcome.FAILURE)
    value = episode_to_json(episode)
    assert "truncated" not in value["steps"][1]
    again = episode_from_json(value)
    assert again == episode
    assert (again.truncated, again.invalid, again.cut_prompts) == (1, 1, 1)
    for name in ("truncated", "prompt_cut", "dropped"):
        del value["steps"][0][name]
    assert episode_from_json(value).steps[0] == Step("o", "t", "", 0.0, False)
    with pytest.raises(UsageError, match="dropped must be a valid integer"):
        episode_from_json({**value, "steps": [{**value["steps"][0], "dropped": True}]})

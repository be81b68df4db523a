"""Episodes as lines of JSON. Text and outcomes are kept; token ids are not, since nothing learns from a file.

A file that is not one of these is refused in one line that names the file, the line in it and what is wrong there.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gentax.core.episode import Episode, Outcome, Step
from gentax.core.errors import UsageError, unknown
from gentax.core.task import Task

NAME = "episodes.jsonl.gz"  # of the file, in the folder of a study's stage
LOSSES = ("truncated", "prompt_cut", "dropped")  # of a step; written where there are any


def to_json(episode: Episode) -> dict[str, Any]:
    """Return an episode as plain values."""
    return {
        "task": episode.task.id,
        "sample": episode.sample,
        "rules": episode.rules,
        "goal": episode.goal,
        "outcome": episode.outcome.value,
        "final": episode.final,
        "error": episode.error,
        **({"content": episode.content} if episode.content else {}),
        "steps": [
            {
                "observation": step.observation,
                "text": step.text,
                "action": step.action,
                "thought": step.thought,
                "reward": step.reward,
                "valid": step.valid,
                "written": step.written,
                **{name: value for name in LOSSES if (value := getattr(step, name))},
                **({} if step.admissible is None else {"admissible": list(step.admissible)}),
            }
            for step in episode.steps
        ],
    }


def from_json(value: dict[str, Any]) -> Episode:
    """Read an episode back; its steps have no tokens.

    Raises:
        UsageError: a value that `to_json` does not make.
    """
    outcome = _text(value, "outcome")
    if outcome not in set(Outcome):
        raise unknown("outcome", outcome, Outcome)
    try:
        task = Task.parse(_text(value, "task"))
    except ValueError:
        raise UsageError(f"'task' must be domain/level/split/index, not {value['task']!r:.80}") from None
    return Episode(
        task,
        _is(value, "sample", int, "a whole number"),
        _text(value, "goal"),
        tuple(_step(row) for row in _is(value, "steps", list, "a list")),
        Outcome(outcome),
        _text(value, "final"),
        _text(value, "error"),
        _text(value, "rules"),
        _text(value, "content") if "content" in value else "",
    )


def write_episodes(path: Path, episodes: Iterable[Episode]) -> None:
    """Write episodes to a gzipped file, a line each; the same episodes make the same bytes."""
    lines = "".join(json.dumps(to_json(episode)) + "\n" for episode in episodes)
    path.write_bytes(gzip.compress(lines.encode(), mtime=0))


def read_episodes(path: Path) -> list[Episode]:
    """Read the episodes that `write_episodes` wrote, from the file or from the folder of a stage that holds it.

    Files that were joined (`cat a.gz b.gz`) are read as one.

    Raises:
        UsageError: no such file, a file that is not gzipped or is cut short or damaged, a line that is no episode.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / NAME).is_file():
            raise UsageError(f"the folder {path} holds no {NAME}")
        path = path / NAME
    if not path.is_file():
        raise UsageError(f"there is no file of episodes {path}")
    packed = path.read_bytes()
    if packed[:2] != b"\x1f\x8b":
        raise UsageError(f"{path} is not a file of episodes: it is not gzipped")
    text = unpacked(packed, path)
    episodes = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        try:
            episodes.append(from_json(json.loads(line)))
        except json.JSONDecodeError as fault:
            raise UsageError(f"{path}, line {number}, is not JSON: {fault}") from None
        except (UsageError, RecursionError) as fault:
            raise UsageError(f"{path}, line {number}, is not an episode: {fault}") from None
    return episodes


def unpacked(packed: bytes, path: Path) -> str:
    """Return the text of a gzipped file. Raises UsageError, which names `path`, when it is cut short or damaged."""
    try:
        return gzip.decompress(packed).decode()
    except EOFError:
        raise UsageError(f"{path} is cut short: its end is missing") from None
    except (gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as fault:
        raise UsageError(f"{path} is damaged: {fault}") from None


def _step(row: Any) -> Step:
    admissible = _is(row, "admissible", list, "a list") if isinstance(row, dict) and "admissible" in row else None
    if admissible is not None and not all(isinstance(action, str) for action in admissible):
        raise UsageError("'admissible' must hold text")
    written = row.get("written") if isinstance(row, dict) else None  # files of earlier versions do not have it
    return Step(
        observation=_text(row, "observation"),
        text=_text(row, "text"),
        action=_text(row, "action"),
        reward=_is(row, "reward", (int, float), "a number"),
        valid=_is(row, "valid", bool, "true or false"),
        thought=_text(row, "thought"),
        admissible=None if admissible is None else tuple(admissible),
        written=None if written is None else _is(row, "written", int, "a whole number"),
        truncated="truncated" in row and _is(row, "truncated", bool, "true or false"),
        prompt_cut="prompt_cut" in row and _is(row, "prompt_cut", bool, "true or false"),
        dropped=_is(row, "dropped", int, "a whole number") if "dropped" in row else 0,
    )


def _text(row: Any, key: str) -> str:
    return _is(row, key, str, "text")


def _is(row: Any, key: str, of: type | tuple[type, ...], what: str) -> Any:
    """Return `row[key]` where it is what it must be."""
    if not isinstance(row, dict):
        raise UsageError(f"a mapping was expected, not {row!r:.40}")
    if key not in row:
        raise UsageError(f"it lacks {key!r}")
    value = row[key]
    if not isinstance(value, of) or (isinstance(value, bool) and of is not bool):
        raise UsageError(f"{key!r} must be {what}, not {value!r:.40}")
    return value

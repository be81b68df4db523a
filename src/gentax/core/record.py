"""Episodes as lines of JSON. Text and outcomes are kept; token ids are not, since nothing learns from a file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gentax.core.episode import Episode, Outcome, Step
from gentax.core.task import Task


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
        "steps": [
            {
                "observation": step.observation,
                "text": step.text,
                "action": step.action,
                "thought": step.thought,
                "reward": step.reward,
                "valid": step.valid,
                "written": step.written,
                **({} if step.admissible is None else {"admissible": list(step.admissible)}),
            }
            for step in episode.steps
        ],
    }


def from_json(value: dict[str, Any]) -> Episode:
    """Read an episode back; its steps have no tokens."""
    steps = tuple(
        Step(
            observation=row["observation"],
            text=row["text"],
            action=row["action"],
            reward=row["reward"],
            valid=row["valid"],
            thought=row["thought"],
            admissible=tuple(row["admissible"]) if "admissible" in row else None,
            written=row.get("written"),
        )
        for row in value["steps"]
    )
    return Episode(
        Task.parse(value["task"]),
        value["sample"],
        value["goal"],
        steps,
        Outcome(value["outcome"]),
        value["final"],
        value["error"],
        value["rules"],
    )


def write_episodes(path: Path, episodes: Iterable[Episode]) -> None:
    """Write episodes to a gzipped file, a line each; the same episodes make the same bytes."""
    lines = "".join(json.dumps(to_json(episode)) + "\n" for episode in episodes)
    path.write_bytes(gzip.compress(lines.encode(), mtime=0))


def read_episodes(path: Path) -> list[Episode]:
    """Read the episodes that `write_episodes` wrote."""
    return [from_json(json.loads(line)) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
